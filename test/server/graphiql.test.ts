// GraphiQL in a real browser that can reach nothing but this machine.

import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium } from 'playwright-core'
import type { BrowserContext, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startHarness } from '../harness.ts'
import type { Harness } from '../harness.ts'

const candidates = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']
const executablePath = candidates.find((path) => path !== undefined && existsSync(path))
if (executablePath === undefined) {
  process.stderr.write(
    'The browser test is skipped: no Chromium on this machine. Install one, or name it in CHROMIUM.\n',
  )
}

describe.skipIf(executablePath === undefined)('GraphiQL', () => {
  let harness: Harness
  let browser: BrowserContext
  let page: Page
  const refused: string[] = []
  const complaints: string[] = []
  const profile = mkdtempSync(join(tmpdir(), 'blotter-browser-'))

  beforeAll(async () => {
    harness = await startHarness()
    browser = await chromium.launchPersistentContext(profile, {
      ...(executablePath === undefined ? {} : { executablePath }),
      headless: true,
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    })
    await browser.route(
      (url) => !['127.0.0.1', 'localhost'].includes(url.hostname),
      (route) => {
        refused.push(route.request().url())
        return route.abort()
      },
    )
    page = await browser.newPage()
    page.on('pageerror', (error) => complaints.push(error.message))
    // What the page's own policy keeps from it.
    page.on('console', (message) => message.text().includes('Security Policy') && complaints.push(message.text()))
    await page.goto(harness.url)
    await page.locator('.graphiql-tab').first().waitFor()
  }, 60_000)

  afterAll(async () => {
    await browser.close()
    await harness.close()
    rmSync(profile, { recursive: true, force: true })
  })

  /** Presses and releases the mouse where the middle of the tab is shown, as a user does: one click, without a retry. */
  async function clickTab(index: number): Promise<void> {
    const box = await page.locator('.graphiql-tab-button').nth(index).boundingBox()
    if (box === null) throw new Error(`GraphiQL shows no tab ${index}`)
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2)
    await page.mouse.down()
    await page.mouse.up()
  }

  /** Opens the tab, runs it, and returns what the answer pane shows once it holds `expected`. */
  async function runTab(index: number, expected: string): Promise<string> {
    await clickTab(index)
    // The answer pane renders the lines in sight only, so what is looked for has to stand near its top.
    const answer = page.locator('.graphiql-response')
    // GraphiQL notices a moment after the switch which operation the tab holds; until then it runs nothing.
    const isShown = async () => {
      await page.getByRole('button', { name: /^Execute query/ }).click()
      return await answer
        .getByText(expected)
        .first()
        .waitFor({ timeout: 1_000 })
        .then(
          () => true,
          () => false,
        )
    }
    await expect.poll(isShown, { timeout: 20_000 }).toBe(true)
    return answer.innerText()
  }

  it('opens with its tabs, and everything it needs comes from this server', async () => {
    expect(await page.title()).toBe('Blotter')
    expect(await page.locator('.graphiql-tab').count()).toBe(4)
    expect(refused).toEqual([])
    expect(complaints).toEqual([])
  })

  it('23b opens each tab by the first mouse click on it', async () => {
    for (const index of [1, 2, 3, 0, 2, 1, 0]) {
      await clickTab(index)
      const isActive = () =>
        page
          .locator('.graphiql-tab')
          .nth(index)
          .evaluate((tab) => tab.className.includes('graphiql-tab-active'))
      await expect.poll(isActive, { timeout: 3_000 }).toBe(true)
    }
  })

  it('runs the first tab unchanged and shows the order', async () => {
    expect(await runTab(0, 'FILLED')).toContain(harness.sandbox.demo.filledOrderId)
  })

  it('runs the list, the placement and the cancel as they stand', async () => {
    expect(await runTab(1, 'nodes')).toContain('ACCEPTED')
    expect(await runTab(2, 'OrderPlaced')).toContain('PLACED')
    expect(await runTab(3, 'CancelConfirmed')).toContain('CANCELED')
    const [placed] = (await harness.book()).filter((order) => order.client_order_id === 'graphiql-0001')
    expect(placed).toMatchObject({ status: 'accepted' })
    expect(complaints).toEqual([])
  })
})
