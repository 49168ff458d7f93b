// The client of the demo: an ordinary HTTP client that knows a name and nothing else. Prints one JSON line when it is done, and `first` at the first byte.
// usage: node demo-client.js URL
import { createHash } from 'node:crypto'
import { get } from 'node:http'

const request = get(process.argv[2]!, { agent: false }, (response) => {
  const hash = createHash('sha256')
  let bytes = 0
  let longestGap = 0
  let last = performance.now()
  let text = ''
  const stream = request.path.startsWith('/stream')
  response.on('data', (chunk: Buffer) => {
    const now = performance.now()
    if (bytes === 0) console.log('first')
    else longestGap = Math.max(longestGap, now - last)
    last = now
    bytes += chunk.length
    hash.update(chunk)
    if (stream) text += chunk.toString()
  })
  response.on('end', () => {
    const lines = text.split('\n').slice(0, -1)
    const whole = stream ? lines.every((line, i) => line === String(i)) : true
    const host = response.headers['x-host']
    console.log(
      JSON.stringify({ host, bytes, hash: hash.digest('hex'), longestGapMs: longestGap, lines: lines.length, whole }),
    )
  })
  response.on('error', fail)
})
request.on('error', fail)

function fail(error: Error): void {
  console.error(error.message)
  process.exitCode = 1
}
