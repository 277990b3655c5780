// Aries in the registry: its settings, and how they become an adapter.

import { defineBroker } from '../entry.ts'
import { capabilityWords } from '../capabilitySetting.ts'
import { baseUrl, choice, integer, secret, text } from '../../domain/setting.ts'
import type { Secret, SettingsTable, Values } from '../../domain/setting.ts'
import { ariesAccountIds, createAries } from './aries.ts'
import { ariesFeatures } from './ariesJson.ts'
import { ariesPrefix, toAriesId } from './ids.ts'
import type { OAuthCredential } from './tokens.ts'

const since = '0.1.0'

const settings = {
  ARIES_URL: {
    // The paths of the API name their versions, so with another version every call would be answered with 404.
    schema: baseUrl(
      'must be an https:// address without a version, such as https://api.aries.com, ' +
        'without credentials, query or fragment (http:// is taken for loopback only)',
      (url) => !/\/v\d+\/*$/.test(url.pathname),
    ),
    description: 'Address without a version, such as https://api.aries.com.',
    since,
  },
  ARIES_CLIENT_ID: { schema: text, description: 'OAuth2 client id.', since },
  ARIES_CLIENT_SECRET: { schema: secret, isSecret: true, description: 'OAuth2 client secret.', since },
  ARIES_REFRESH_TOKEN: { schema: secret, isSecret: true, description: 'OAuth2 refresh token.', since },
  ARIES_ACCESS_TOKEN: {
    schema: secret,
    isSecret: true,
    description:
      'An access token that another system refreshes, instead of client id, client secret and refresh token.',
    since,
  },
  ARIES_ACCOUNT_FIELD: {
    schema: choice('accountId', 'tradingAccountId'),
    default: 'accountId',
    description:
      "The name of the account in requests, about which Aries' pages disagree: `accountId` or `tradingAccountId`.",
    since,
  },
  ARIES_TRADING_ID: {
    schema: choice(...ariesAccountIds),
    defaultNote: 'id',
    description:
      "The id of Aries' list of accounts that its order API takes: `id`, `fdid`, `apex_account_id` or `sterling_account_id`. " +
      'Aries does not document it.',
    since,
  },
  ARIES_REQUESTS_PER_SECOND: {
    schema: integer(1, 10_000),
    defaultNote: '10; 1000 with the sandbox',
    description:
      'Rate that Blotter assumes, because Aries publishes none. Blotter uses 80 % of it, and less for a while after each 429. ' +
      '1 to 10,000.',
    since,
  },
  ARIES_CAPABILITIES: {
    schema: capabilityWords,
    default: '',
    description: 'Capabilities that `npm run blotter -- certify --broker aries` has proven.',
    since,
  },
} as const satisfies SettingsTable

/** Aries' order API. */
export const ariesEntry = defineBroker({
  id: 'ARIES',
  name: 'Aries',
  description: "Aries' order API.",
  ids: { prefix: ariesPrefix, orderNamesAccount: true },
  apis: [{ title: 'Aries', features: ariesFeatures }],
  sandboxHosts: [],
  settings,
  configure(values, problems, { isSandbox, isConfigured }) {
    const { ARIES_URL: url, ARIES_TRADING_ID: tradingId } = values
    const requestsPerSecond = values.ARIES_REQUESTS_PER_SECOND ?? (isSandbox ? 1_000 : 10)
    const credential = readCredential(values, problems, isConfigured)
    return {
      url: url ?? null,
      isInSandbox: true,
      requestsPerSecond,
      secret: values.ARIES_ACCESS_TOKEN ?? values.ARIES_CLIENT_SECRET ?? null,
      // Not checked with a call, because a token request may invalidate the refresh token of the settings.
      warnings:
        isConfigured && tradingId === undefined
          ? [
              "ARIES_TRADING_ID is not set, so accounts are listed by their id in Aries' list of accounts. Aries does not document which of its ids its order API takes: set the one that your callers use, even if it is id. A running service logs a warning when a read shows that callers use another one.",
            ]
          : [],
      listSandboxAccounts: ({ aries }) => aries.accounts.map((name) => toAriesId(name)),
      connect: ({ sandbox, findProxy, breaker, onNotice }) =>
        createAries({
          url: url ?? sandbox?.aries.url ?? '',
          proxyUrl: url === undefined ? null : findProxy(new URL(url)),
          credential: credential ?? {
            clientId: sandbox?.aries.clientId ?? '',
            clientSecret: sandbox?.aries.clientSecret ?? '',
            refreshToken: sandbox?.aries.refreshToken ?? '',
          },
          accountField: values.ARIES_ACCOUNT_FIELD,
          tradingId: tradingId ?? ariesAccountIds.find((name) => name === sandbox?.aries.tradingId) ?? 'id',
          requestsPerSecond,
          capabilities: values.ARIES_CAPABILITIES,
          breaker,
          ...(onNotice && { onNotice }),
        }),
    }
  },
})

function readCredential(
  values: Values<typeof settings>,
  problems: string[],
  isConfigured: boolean,
): OAuthCredential | null {
  const { ARIES_CLIENT_ID: clientId, ARIES_CLIENT_SECRET: clientSecret } = values
  const { ARIES_REFRESH_TOKEN: refreshToken, ARIES_ACCESS_TOKEN: accessToken } = values
  const parts: Record<string, Secret | string | undefined> = {
    ARIES_CLIENT_ID: clientId,
    ARIES_CLIENT_SECRET: clientSecret,
    ARIES_REFRESH_TOKEN: refreshToken,
  }
  const missing = Object.keys(parts).filter((name) => parts[name] === undefined)
  if (!isConfigured) {
    if (missing.length < 3 || accessToken) {
      problems.push('ARIES_URL is missing, although a credential of Aries is set: set it, or unset the credential')
    }
    return null
  }
  if (accessToken) {
    if (missing.length < 3) {
      problems.push('ARIES_ACCESS_TOKEN is set together with what refreshes a token: keep one of them')
    }
    return { accessToken: accessToken.reveal() }
  }
  for (const name of missing) {
    problems.push(
      `${name} is missing: ARIES_URL needs client id, client secret and refresh token, or ARIES_ACCESS_TOKEN`,
    )
  }
  if (clientId === undefined || !clientSecret || !refreshToken) return null
  return { clientId, clientSecret: clientSecret.reveal(), refreshToken: refreshToken.reveal() }
}
