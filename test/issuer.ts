// Tokens as the issuer of a deployment gives them, and as somebody forges them.

import { generateKeyPairSync } from 'node:crypto'
import { SignJWT } from 'jose'
import type { JWTPayload } from 'jose'

export const issuer = 'https://issuer.example.com'
export const audience = 'blotter'
export const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' })
export const pem = keys.publicKey.export({ type: 'spki', format: 'pem' })
/** The settings of a service that takes them. */
export const tokenEnv = { AUTH: 'jwt', JWT_ISSUER: issuer, JWT_AUDIENCE: audience, JWT_PUBLIC_KEY: pem }

/** Claims that grant everything. */
export const all = { scope: 'orders:read orders:place orders:cancel', accounts: ['*'] }

interface Forging {
  key?: typeof keys.privateKey
  alg?: string
  kid?: string
  /** Seconds from now. */
  expiresIn?: number | null
  notBefore?: number
}

/** A token of `claims`, good for five minutes unless `forging` says otherwise. */
export async function sign(claims: JWTPayload, forging: Forging = {}): Promise<string> {
  const { key = keys.privateKey, alg = 'ES256', kid, expiresIn = 300, notBefore } = forging
  const now = Math.floor(Date.now() / 1_000)
  const payload = { iss: issuer, aud: audience, sub: 'somebody', ...claims }
  const token = new SignJWT(payload).setProtectedHeader({ alg, ...(kid && { kid }) }).setIssuedAt(now)
  if (expiresIn !== null) token.setExpirationTime(now + expiresIn)
  if (notBefore !== undefined) token.setNotBefore(now + notBefore)
  return await token.sign(key)
}
