// The graph as it is committed: it is what the code prints, it holds the contract, and every part of it is explained.

import { readFileSync } from 'node:fs'
import {
  buildSchema,
  isEnumType,
  isInputObjectType,
  isInterfaceType,
  isIntrospectionType,
  isObjectType,
  parse,
  validateSchema,
  visit,
} from 'graphql'
import type { GraphQLSchema } from 'graphql'
import { describe, expect, it } from 'vitest'
import { createSchema, printApiSchema, printSchema } from '../../src/graph/schema.ts'

const committed = readFileSync(new URL('../../schema.graphql', import.meta.url), 'utf8')

describe('schema.graphql', () => {
  it('is what the code prints; run `npm run generate` after a change', () => {
    expect(printSchema(createSchema())).toBe(committed)
  })

  it('links federation 2.9 with the directives it uses', () => {
    expect(committed.split('\n')[0]).toBe(
      'extend schema @link(url: "https://specs.apollo.dev/federation/v2.9", import: ["@key", "@shareable", "@cost", "@listSize"])',
    )
    expect(() => parse(committed)).not.toThrow()
  })

  it('marks entities, costs and sizes of lists', () => {
    expect(committed).toContain('type Order @key(fields: "id") @key(fields: "id account { id }") {')
    expect(committed).toContain('type TradingAccount @key(fields: "id") {')
    expect(committed).toContain('type Asset @key(fields: "symbol", resolvable: false) {')
    expect(committed).toContain('type PageInfo @shareable {')
    expect(committed.match(/@cost\(weight: 50\)/g)).toHaveLength(2)
    expect(committed.match(/@cost\(weight: 10\)/g)).toHaveLength(5)
    expect(
      committed.match(
        /@listSize\(assumedSize: 50, slicingArguments: \["first"\], sizedFields: \["edges", "nodes"\], requireOneSlicingArgument: false\)/g,
      ),
    ).toHaveLength(2)
  })
})

describe('schema.api.graphql', () => {
  const api = readFileSync(new URL('../../schema.api.graphql', import.meta.url), 'utf8')

  it('is what the code prints; run `npm run generate` after a change', () => {
    expect(printApiSchema(createSchema())).toBe(api)
  })

  it('16 builds with graphql-js alone, and is the schema of the service without federation', () => {
    const built = buildSchema(api)
    expect(validateSchema(built)).toEqual([])
    const own = describeMembers(createSchema()).filter((member) => !/^(Query\._)/.test(member))
    expect(describeMembers(built)).toEqual(expect.arrayContaining(own))
    expect(describeMembers(built)).toHaveLength(own.length)
    expect(describeMembers(built).length).toBeGreaterThan(150)
  })

  it('16 has nothing of federation, and keeps the descriptions', () => {
    const names = new Set<string>()
    visit(parse(api), { Name: ({ value }) => void names.add(value) })
    const federal = [
      'link',
      'key',
      'shareable',
      'cost',
      'listSize',
      '_service',
      '_entities',
      '_Any',
      '_Entity',
      '_Service',
    ]
    expect(federal.filter((name) => names.has(name))).toEqual([])
    const descriptionsOf = (sdl: string): string[] => {
      const found: string[] = []
      visit(parse(sdl), {
        FieldDefinition: ({ name, description }) => {
          if (!name.value.startsWith('_')) found.push(`${name.value}: ${description?.value}`)
        },
      })
      return found
    }
    expect(descriptionsOf(api)).toEqual(descriptionsOf(committed).filter((each) => !each.startsWith('sdl: ')))
  })
})

describe('the contract', () => {
  // What frontends and gateways were promised: names, types and nullability. What later versions bring is not in it yet.
  const contract = buildSchema(readFileSync(new URL('../fixtures/schema.contract.graphql', import.meta.url), 'utf8'), {
    assumeValidSDL: true,
  })

  it('is held, name by name and type by type', () => {
    expect(describeMembers(createSchema())).toEqual(expect.arrayContaining(describeMembers(contract)))
  })

  it('is all there is: nothing was added without a promise', () => {
    const promised = new Set(describeMembers(contract))
    const own = describeMembers(createSchema()).filter((member) => !/^(_|Query\._|federation__|link__)/.test(member))
    expect(own.filter((member) => !promised.has(member))).toEqual([])
  })
})

describe('descriptions', () => {
  it('stand on every type, field, argument and value', () => {
    const missing: string[] = []
    for (const type of ownTypes(createSchema())) {
      if (!type.description) missing.push(type.name)
      if (isEnumType(type)) {
        missing.push(
          ...type
            .getValues()
            .filter((value) => !value.description)
            .map((value) => `${type.name}.${value.name}`),
        )
      }
      if (isObjectType(type) || isInterfaceType(type) || isInputObjectType(type)) {
        for (const field of Object.values(type.getFields())) {
          if (field.name.startsWith('_')) continue
          if (!field.description) missing.push(`${type.name}.${field.name}`)
          if (!('args' in field)) continue
          for (const argument of field.args) {
            if (!argument.description) missing.push(`${type.name}.${field.name}(${argument.name})`)
          }
        }
      }
    }
    expect(missing).toEqual([])
  })
})

function ownTypes(schema: GraphQLSchema) {
  const builtIn = new Set(['String', 'ID', 'Int', 'Float', 'Boolean'])
  return Object.values(schema.getTypeMap()).filter(
    (type) => !isIntrospectionType(type) && !builtIn.has(type.name) && !/^(_|federation__|link__)/.test(type.name),
  )
}

/** One line for each type, field, argument and value, with its type where it has one. */
function describeMembers(schema: GraphQLSchema): string[] {
  return ownTypes(schema).flatMap((type) => {
    if (isEnumType(type)) return type.getValues().map((value) => `${type.name}.${value.name}`)
    if (isInputObjectType(type)) {
      return Object.values(type.getFields()).map((field) => `${type.name}.${field.name}: ${String(field.type)}`)
    }
    if (!isObjectType(type) && !isInterfaceType(type)) return [type.name]
    return [
      ...type.getInterfaces().map((parent) => `${type.name} implements ${parent.name}`),
      ...Object.values(type.getFields()).flatMap((field) => [
        `${type.name}.${field.name}: ${String(field.type)}`,
        ...field.args.map((argument) => `${type.name}.${field.name}(${argument.name}: ${String(argument.type)})`),
      ]),
    ]
  })
}
