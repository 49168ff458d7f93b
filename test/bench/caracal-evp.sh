# caracal-evp: the same with Node's own OpenSSL, whatever else is installed.
. "$(dirname "${BASH_SOURCE[0]}")/caracal.sh"
settings='aead: { implementation: openssl }'
