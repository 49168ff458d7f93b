import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Fixture } from './fixture.js'

/** Debian's systemd-resolved with what it needs, unpacked into a folder. It is never installed: its package replaces /etc/resolv.conf. */
export class ResolvedPackage {
  private constructor(private readonly root: string) {}

  /** Downloads and unpacks; throws with apt's words when that fails. */
  static fetch(folder: string): ResolvedPackage {
    const debs = join(folder, 'debs')
    const root = join(folder, 'root')
    mkdirSync(debs, { recursive: true })
    mkdirSync(root)
    const bus =
      spawnSync('sh', ['-c', 'command -v dbus-daemon']).status === 0
        ? []
        : ['dbus-daemon', 'libdbus-1-3', 'libapparmor1', 'libexpat1']
    const names = ['systemd-resolved', 'libsystemd-shared', ...bus]
    const download = () => spawnSync('apt-get', ['download', '-q', ...names], { cwd: debs, encoding: 'utf8' })
    let result = download()
    if (result.status !== 0) {
      spawnSync('apt-get', ['update', '-q'])
      result = download()
    }
    if (result.status !== 0) throw new Error(`apt-get could not download ${names.join(' ')}: ${result.stderr}`)
    for (const deb of readdirSync(debs)) {
      const { status, stderr } = spawnSync('dpkg', ['-x', join(debs, deb), root], { encoding: 'utf8' })
      if (status !== 0) throw new Error(`dpkg could not unpack ${deb}: ${stderr}`)
    }
    return new ResolvedPackage(root)
  }

  /** A folder with a `resolvectl` that runs by its own libraries, for PATH. */
  installResolvectl(folder: string): string {
    const bin = join(folder, 'bin')
    mkdirSync(bin)
    writeFileSync(
      join(bin, 'resolvectl'),
      `#!/bin/sh\n${this.#libraries()} exec ${this.root}/usr/bin/resolvectl "$@"\n`,
    )
    chmodSync(join(bin, 'resolvectl'), 0o755)
    return bin
  }

  /**
   * Starts a message bus and systemd-resolved on a host of the lab, on a /run of the host's own and with a user of its own in /etc/passwd. `server`: asked for
   * names that no link claims.
   */
  async start(net: Fixture, host: string, server: string): Promise<void> {
    const file = (name: string) => join(net.folder, name)
    writeFileSync(
      file('bus.conf'),
      `<busconfig>
         <type>system</type>
         <listen>unix:path=/run/dbus/system_bus_socket</listen>
         <auth>EXTERNAL</auth>
         <policy context="default">
           <allow user="*"/>
           <allow own="*"/>
           <allow send_type="method_call"/>
           <allow send_type="signal"/>
           <allow send_requested_reply="true" send_type="method_return"/>
           <allow send_requested_reply="true" send_type="error"/>
           <allow receive_type="method_call"/>
           <allow receive_type="method_return"/>
           <allow receive_type="error"/>
           <allow receive_type="signal"/>
         </policy>
       </busconfig>`,
    )
    net.lab.script(
      host,
      `mount -t tmpfs -o mode=755 tmpfs /run
       mkdir -p /run/dbus /run/systemd/resolve /run/systemd/resolved.conf.d
       printf '[Resolve]\\nDNS=${server}\\nFallbackDNS=\\nDNSSEC=no\\nLLMNR=no\\nMulticastDNS=no\\n' >/run/systemd/resolved.conf.d/test.conf
       { cat /etc/passwd; echo 'systemd-resolve:x:64998:64998::/:/bin/false'; } >${file('passwd')}
       { cat /etc/group; echo 'systemd-resolve:x:64998:'; } >${file('group')}
       chmod 644 ${file('passwd')} ${file('group')}
       mount --bind ${file('passwd')} /etc/passwd
       mount --bind ${file('group')} /etc/group
       chown 64998:64998 /run/systemd/resolve`,
    )
    const libraries = this.#libraries()
    const bus =
      spawnSync('sh', ['-c', 'command -v dbus-daemon']).status === 0
        ? 'dbus-daemon'
        : `${this.root}/usr/bin/dbus-daemon`
    await net.start(
      host,
      ['sh', '-c', `${libraries} exec ${bus} --nofork --print-address --config-file=${file('bus.conf')}`],
      /unix:/,
    )
    await net.start(host, [
      'sh',
      '-c',
      `${libraries} SYSTEMD_LOG_TARGET=console exec ${this.root}/lib/systemd/systemd-resolved`,
    ])
    await net.until(
      'systemd-resolved answers',
      async () => (await net.run(host, ['resolvectl', 'status', '--no-pager'])).code === 0,
    )
  }

  #libraries(): string {
    const folders = spawnSync(
      'sh',
      [
        '-c',
        `echo ${this.root}/usr/lib/*-linux-gnu ${this.root}/usr/lib/*-linux-gnu/systemd ${this.root}/lib/*-linux-gnu`,
      ],
      {
        encoding: 'utf8',
      },
    )
    return `LD_LIBRARY_PATH=${folders.stdout.trim().replaceAll(' ', ':')}`
  }
}
