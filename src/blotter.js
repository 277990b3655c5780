#!/usr/bin/env node
// The entry point of every command. It checks the version of Node first, because an older one fails at the first type
// annotation. It is JavaScript that Node 14 can parse, and imports nothing of ours before the check.

// oxlint-disable-next-line unicorn/prefer-node-protocol -- older versions do not know the protocol
import { readFileSync } from 'fs'

const { engines } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))
const needed = engines.node.replace('>=', '')
const [neededMajor, neededMinor] = needed.split('.').map(Number)
const [major, minor] = process.versions.node.split('.').map(Number)

if (major > neededMajor || (major === neededMajor && minor >= neededMinor)) {
  // main.ts handles its own errors. An error while it is imported ends the process with a stack.
  void import('./main.ts')
} else {
  process.stderr
    .write(`Blotter needs Node ${needed} or newer, and this is Node ${process.versions.node} (${process.execPath}).
  After npm ci, use npm start or npm run blotter -- COMMAND: they run on the Node that npm ci brings along.
  After npm ci --omit=dev, which brings none, install Node ${needed} or newer: from https://nodejs.org/en/download, with a
  version manager (nvm install ${neededMajor}), or in a container from the image node:${neededMajor}-slim.
`)
  process.exit(1)
}
