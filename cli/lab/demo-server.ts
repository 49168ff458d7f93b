// The web server of the demo: GET /body answers 1 MB that depends on nothing but its length; GET /stream?for=MS a line every 5 ms.
// usage: node demo-server.js PORT NAME
import { createServer } from 'node:http'
import { demoBody } from './demo-body.js'

const [port, name] = process.argv.slice(2)
const body = demoBody()

const server = createServer((request, response) => {
  const url = new URL(request.url ?? '/', 'http://web')
  response.setHeader('x-host', name ?? '?')
  if (url.pathname === '/body') return void response.end(body)
  if (url.pathname !== '/stream') {
    response.statusCode = 404
    return void response.end('the demo has /body and /stream\n')
  }
  const limit = Math.min(Number(url.searchParams.get('for')) || 1_000, 60_000)
  const started = performance.now()
  let line = 0
  const timer = setInterval(() => {
    // As many lines as are due: a late timer does not make the stream shorter.
    while (line * 5 <= performance.now() - started && line * 5 < limit) response.write(`${line++}\n`)
    if (line * 5 >= limit) {
      clearInterval(timer)
      response.end()
    }
  }, 5)
  response.on('close', () => clearInterval(timer))
})
server.listen(Number(port), '0.0.0.0', () => console.log('ready'))
