import js from '@eslint/js'
import tseslint from 'typescript-eslint'

const io = ['fs', 'net', 'dgram', 'child_process', 'os', 'timers', 'worker_threads', 'dns', 'crypto', 'process', 'path']

export default tseslint.config(
  { ignores: ['dist/', 'build/', 'node_modules/', '.tap/', 'test/bench/peers/'] },
  js.configs.recommended,
  ...tseslint.configs.recommended,
  {
    rules: {
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
      'no-restricted-exports': ['error', { restrictDefaultExports: { direct: true } }],
    },
  },
  { files: ['eslint.config.js'], rules: { 'no-restricted-exports': 'off' } },
  {
    files: ['test/tools/*.mjs', 'daemon/bundle/make.mjs'],
    languageOptions: { globals: { console: 'readonly', URL: 'readonly', process: 'readonly' } },
  },
  {
    files: ['lib/**/*.ts'],
    ignores: ['lib/client/**'],
    rules: {
      'no-restricted-imports': ['error', { paths: io.flatMap((m) => [m, `node:${m}`]) }],
      'no-restricted-globals': ['error', 'process', 'setTimeout', 'setInterval', 'setImmediate', 'performance'],
      'no-restricted-properties': [
        'error',
        { object: 'Date', property: 'now', message: 'time is an argument' },
        { object: 'Math', property: 'random', message: 'randomness is an argument' },
      ],
    },
  },
)
