/**
 * Pickup codes: seven characters that people read out over a counter.
 *
 * The alphabet leaves out what sounds or looks alike (0 and O, 1 and I and L, B and 8, S and 5, and U beside V). The last
 * character checks the others, so a misheard one is noticed before anybody walks to a shelf.
 */

const alphabet = "234679ACDEFGHJKMNPQRTVWXYZ";
const payloadLength = 6;
/** No common factor with the length of the alphabet: then every single wrong character changes the sum. */
const weights = [1, 3, 5, 7, 9, 11];

/** Draws a code. `random` gives numbers from 0 to below 1; `taken` says whether a code is in use. */
export function makeCode(random: () => number, taken: (code: string) => boolean): string {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    let payload = "";
    while (payload.length < payloadLength) payload += alphabet[Math.floor(random() * alphabet.length)];
    const code = payload + checkCharacter(payload);
    if (!taken(code)) return code;
  }
  throw new Error("No free pickup code in a hundred draws: the random source is broken");
}

/** Upper case, without the blanks and dashes that people put in. */
export function normalizeCode(text: string): string {
  return text.toUpperCase().replaceAll(/[\s-]/g, "");
}

/** Whether the text could be a code at all: length, alphabet and check character. */
export function isWellFormed(code: string): boolean {
  if (code.length !== payloadLength + 1) return false;
  if ([...code].some((character) => !alphabet.includes(character))) return false;
  return checkCharacter(code.slice(0, payloadLength)) === code[payloadLength];
}

/** Weighted sum over the alphabet's indices. Weights differ from place to place, so that a swapped pair changes it too, nearly always. */
function checkCharacter(payload: string): string {
  let sum = 0;
  [...payload].forEach((character, place) => {
    sum += alphabet.indexOf(character) * (weights[place] ?? 0);
  });
  return alphabet[sum % alphabet.length] ?? "";
}
