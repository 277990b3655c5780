// graphql-codegen for a frontend of Blotter.

import type { CodegenConfig } from '@graphql-codegen/cli'

const config: CodegenConfig = {
  schema: 'schema.api.graphql',
  documents: ['src/**/*.ts'],
  generates: {
    'src/gql/': {
      preset: 'client',
      config: {
        // An amount stays a string: as a number it would lose digits.
        scalars: { ID: 'string', Decimal: 'string', DateTime: 'string' },
        strictScalars: true,
        enumsAsTypes: true,
      },
    },
  },
}

export default config
