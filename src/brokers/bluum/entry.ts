// Bluum in the registry: its settings, and how they become an adapter.

import { defineBroker } from '../entry.ts'
import { capabilityWords } from '../capabilitySetting.ts'
import { baseUrl, choice, integer, secret } from '../../domain/setting.ts'
import type { SettingsTable } from '../../domain/setting.ts'
import { createBluum } from './bluum.ts'
import { dialects } from './dialects.ts'

const since = '0.1.0'

const settings = {
  BLUUM_URL: {
    schema: baseUrl(
      'must be an https:// address with its version, such as https://api.bluumfinance.com/v1, ' +
        'without credentials, query or fragment (http:// is taken for loopback only)',
    ),
    description:
      'Base URL with its version, such as https://sandbox.api.bluumfinance.com/v1. If no broker has a URL, the embedded ' +
      'sandbox takes the place of all of them.',
    since,
  },
  BLUUM_API_KEY: { schema: secret, isSecret: true, description: 'API key of that environment.', since },
  BLUUM_API_SECRET: { schema: secret, isSecret: true, description: 'API secret of that environment.', since },
  BLUUM_API: {
    schema: choice('accounts', 'investors'),
    default: 'accounts',
    description:
      'Generation of the API: `accounts` (/trading/accounts/{id}/orders) or `investors` (/investors/{id}/orders). The ids ' +
      'of accounts show which one an environment has: investors have inv_….',
    since,
  },
  BLUUM_REQUESTS_PER_SECOND: {
    schema: integer(1, 10_000),
    defaultNote: '10; 1000 with the sandbox',
    description:
      'Rate that Bluum grants the key pair: 10 in its sandbox, 25 in production. Blotter uses 80 % of it. 1 to 10,000.',
    since,
  },
  BLUUM_CAPABILITIES: {
    schema: capabilityWords,
    default: '',
    description:
      'Capabilities that `npm run blotter -- certify` has proven of that environment, such as clientIdEcho,listNewestFirst. ' +
      'Others are not relied on.',
    since,
  },
} as const satisfies SettingsTable

/** Bluum's trading API in both generations. */
export const bluumEntry = defineBroker({
  id: 'BLUUM',
  name: 'Bluum',
  description: "Bluum's trading API.",
  ids: { prefix: '', orderNamesAccount: false },
  apis: [
    { title: 'Bluum, `accounts`', features: dialects.accounts.features },
    { title: 'Bluum, `investors`', features: dialects.investors.features },
  ],
  sandboxHosts: ['sandbox.api.bluumfinance.com', 'test-service.bluumfinance.com', 'sandbox.api.bluum.finance'],
  settings,
  configure(values, problems, { isSandbox, isConfigured }) {
    const { BLUUM_URL: url, BLUUM_API_KEY: apiKey, BLUUM_API_SECRET: apiSecret, BLUUM_API: api } = values
    const requestsPerSecond = values.BLUUM_REQUESTS_PER_SECOND ?? (isSandbox ? 1_000 : 10)
    if (!isConfigured && (apiKey || apiSecret)) {
      problems.push('BLUUM_URL is missing, although a Bluum key is set: set it, or unset the key')
    }
    for (const [name, value] of Object.entries({ BLUUM_API_KEY: apiKey, BLUUM_API_SECRET: apiSecret })) {
      if (isConfigured && !value) problems.push(`${name} is missing: BLUUM_URL needs the key pair of that environment`)
    }
    return {
      url: url ?? null,
      isInSandbox: true,
      requestsPerSecond,
      secret: apiSecret ?? null,
      warnings: [],
      listSandboxAccounts: ({ accounts, investors }) => (api === 'investors' ? investors : accounts),
      connect: ({ sandbox, findProxy, isForeignId, breaker, findAccount, onNotice }) =>
        createBluum({
          url: url ?? sandbox?.url ?? '',
          proxyUrl: url === undefined ? null : findProxy(new URL(url)),
          apiKey: apiKey?.reveal() ?? sandbox?.apiKey ?? '',
          apiSecret: apiSecret?.reveal() ?? sandbox?.apiSecret ?? '',
          api,
          requestsPerSecond,
          capabilities: values.BLUUM_CAPABILITIES,
          breaker,
          isForeignId,
          ...(findAccount && { findAccount }),
          ...(onNotice && { onNotice }),
        }),
    }
  },
})
