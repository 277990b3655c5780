// The form of the settings that list what `certify` has observed of a broker.

import { wordsOf } from '../domain/setting.ts'
import { brokerCapabilities } from './broker.ts'

/** Capabilities, separated by commas, as `certify` prints them. */
export const capabilityWords = wordsOf(brokerCapabilities, 'as certify prints them')
