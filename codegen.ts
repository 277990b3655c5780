import type { CodegenConfig } from '@graphql-codegen/cli'

// Typed operations as a frontend has them, from the committed schema: the tests use them over HTTP, and a drift
// between schema and operations fails `npm test`.
const config: CodegenConfig = {
  schema: 'schema.graphql',
  documents: ['test/frontend/*.ts'],
  ignoreNoDocuments: false,
  generates: {
    'test/frontend/generated/': {
      preset: 'client',
      presetConfig: { fragmentMasking: false, persistedDocuments: { hashAlgorithm: 'sha256' } },
      config: {
        documentMode: 'string',
        importExtension: '.ts',
        enumsAsTypes: true,
        useTypeImports: true,
        strictScalars: true,
        scalars: {
          ID: 'string',
          Decimal: 'string',
          DateTime: 'string',
          _Any: 'unknown',
          federation__FieldSet: 'string',
        },
      },
    },
  },
}

export default config
