// Makes eip4361.json: messages, signatures and verdicts of two other implementations of EIP-4361.
//
//     npm install --ignore-scripts --prefix FOLDER siwe@3.0.0 ethers@6.17.0 viem@2.57.20
//     node make_eip4361.mjs > eip4361.json        (a copy of this file inside FOLDER, where it finds the libraries)
//
// siwe (Apache-2.0) and viem (MIT) each write the same messages; viem signs them with keys that everybody knows and that
// guard nothing. `verdicts` are what siwe itself says of a signed message at some time, for some domain and nonce;
// `refused` are texts with what siwe's parser says of each. All is deterministic: the same output each time.
import { SiweMessage } from "siwe";
import { createSiweMessage } from "viem/siwe";
import { privateKeyToAccount } from "viem/accounts";

const KEYS = [
  "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
  "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
];
const WALLETS = KEYS.map((key) => privateKeyToAccount(key));
const BASE = {
  domain: "fallow.test",
  uri: "https://fallow.test",
  version: "1",
  chainId: 31337,
  nonce: "abcdef0123456789",
  issuedAt: "2026-01-01T00:00:00.000Z",
};
const EXPIRY = { expirationTime: "2026-01-01T00:05:00.000Z" };
const STATEMENT = { statement: "Sign in to Fallow." };
const RESOURCES = { resources: ["https://fallow.test/terms", "ipfs://bafy", "urn:uuid:7f9c24e8-3b12-4fef-91e0-0d0d0d0d0d0d"] };
const CASES = [
  ["plain", { ...STATEMENT, ...EXPIRY }],
  ["no statement", { ...EXPIRY }],
  ["no expiry", { ...STATEMENT }],
  ["not before", { ...STATEMENT, ...EXPIRY, notBefore: "2025-12-31T23:59:00.000Z" }],
  ["request id", { ...STATEMENT, ...EXPIRY, requestId: "request-1.2~3" }],
  ["resources", { ...STATEMENT, ...EXPIRY, ...RESOURCES }],
  ["one resource", { ...STATEMENT, resources: ["https://fallow.test/a?b=c&d=%20#e"] }],
  ["everything", { ...STATEMENT, ...EXPIRY, notBefore: "2025-12-31T23:59:00.000Z", requestId: "r", ...RESOURCES }],
  ["everything but a statement", { ...EXPIRY, notBefore: "2025-12-31T23:59:00.000Z", requestId: "r", ...RESOURCES }],
  ["port in the domain", { ...STATEMENT, domain: "localhost:7301", uri: "http://localhost:7301/login" }],
  ["another chain", { ...STATEMENT, chainId: 1 }],
  ["punctuation in the statement", { statement: "It's free: no money moves (really), 100 at all; ask! a@b/c?d=[e]#f+g*h&i$j_k-l~m" }],
  ["long nonce", { ...STATEMENT, nonce: "0123456789".repeat(6) }],
];

const vectors = [];
for (const [index, [name, changes]] of CASES.entries()) {
  const account = WALLETS[index % WALLETS.length];
  const fields = { ...BASE, ...changes, address: account.address };
  const dates = Object.fromEntries(
    ["issuedAt", "expirationTime", "notBefore"].filter((key) => fields[key]).map((key) => [key, new Date(fields[key])]),
  );
  const texts = { siwe: new SiweMessage(fields).prepareMessage(), viem: createSiweMessage({ ...fields, ...dates }) };
  for (const [library, text] of Object.entries(texts)) {
    const signature = await account.signMessage({ message: text });
    vectors.push({ name: `${library}: ${name}`, fields, text, address: account.address, signature });
  }
}
{
  const account = WALLETS[0];
  const fields = { ...BASE, ...STATEMENT, issuedAt: "2026-01-01T02:30:00+02:30", address: account.address };
  const text = new SiweMessage(fields).prepareMessage();
  const signature = await account.signMessage({ message: text });
  vectors.push({ name: "siwe: offset in times", fields, text, address: account.address, signature });
}

async function verdict(name, changes, { signer = WALLETS[0], text, ...params }) {
  const fields = { ...BASE, ...STATEMENT, ...EXPIRY, ...changes, address: WALLETS[0].address };
  const made = new SiweMessage(fields).prepareMessage();
  const signature = await signer.signMessage({ message: text ?? made });
  const asked = { domain: BASE.domain, nonce: BASE.nonce, time: "2026-01-01T00:01:00.000Z", ...params };
  const answer = await new SiweMessage(made).verify({ signature, ...asked }, { suppressExceptions: true });
  return { name, text: made, signature, ...asked, success: answer.success, error: answer.error?.type ?? null };
}

const verdicts = [
  await verdict("good", {}, {}),
  await verdict("good at the last moment", {}, { time: "2026-01-01T00:04:59.999Z" }),
  await verdict("expired", {}, { time: "2026-01-01T00:05:00.001Z" }),
  await verdict("expired long ago", {}, { time: "2027-01-01T00:00:00.000Z" }),
  await verdict("not yet valid", { notBefore: "2026-01-01T00:03:00.000Z" }, {}),
  await verdict("valid by now", { notBefore: "2026-01-01T00:03:00.000Z" }, { time: "2026-01-01T00:04:00.000Z" }),
  await verdict("another domain", { domain: "evil.test" }, {}),
  await verdict("a domain below ours", { domain: "fallow.test.evil.test" }, {}),
  await verdict("another nonce", { nonce: "anotherNonce0123" }, {}),
  await verdict("another signer", {}, { signer: WALLETS[1] }),
  await verdict("another text", {}, { text: "something else" }),
];

const plain = vectors[0].text;
const all = vectors.find((vector) => vector.name === "siwe: everything").text;
const CHANGES = [
  ["empty", plain, () => ""],
  ["another chain family", plain, (text) => text.replace("Ethereum account:", "Bitcoin account:")],
  ["no domain", plain, (text) => text.replace("fallow.test wants", " wants")],
  ["lower-case address", plain, (text) => text.replace(WALLETS[0].address, WALLETS[0].address.toLowerCase())],
  ["wrong checksum", plain, (text) => text.replace("0x70997970C5", "0x70997970c5")],
  ["short address", plain, (text) => text.replace(WALLETS[0].address, WALLETS[0].address.slice(0, -1))],
  ["no blank line", plain, (text) => text.replace("\n\nSign", "\nSign")],
  ["statement of two lines", plain, (text) => text.replace("Sign in to Fallow.", "Sign in\nto Fallow.")],
  ["version 2", plain, (text) => text.replace("Version: 1", "Version: 2")],
  ["no version", plain, (text) => text.replace("Version: 1\n", "")],
  ["chain id is no number", plain, (text) => text.replace("31337", "mainnet")],
  ["short nonce", plain, (text) => text.replace("abcdef0123456789", "abcdef0")],
  ["nonce with a dash", plain, (text) => text.replace("abcdef0123456789", "abcdef-123456789")],
  ["no nonce", plain, (text) => text.replace("Nonce: abcdef0123456789\n", "")],
  ["no time of issue", plain, (text) => text.replace(/Issued At: .*\n/, "")],
  ["time of issue is no time", plain, (text) => text.replace("2026-01-01T00:00:00.000Z", "yesterday")],
  ["thirteenth month", plain, (text) => text.replace("2026-01-01T00:00", "2026-13-01T00:00")],
  ["expiry is no time", plain, (text) => text.replace("2026-01-01T00:05:00.000Z", "never")],
  ["fields out of order", plain, (text) => text.replace(/(Chain ID: .*)\n(Nonce: .*)\n/, "$2\n$1\n")],
  ["not before ahead of expiry", all, (text) => text.replace(/(Expiration Time: .*)\n(Not Before: .*)\n/, "$2\n$1\n")],
  ["windows line ends", plain, (text) => text.replaceAll("\n", "\r\n")],
  ["resource is no uri", all, (text) => text.replace("- ipfs://bafy", "- not a uri")],
  ["resources without a dash", all, (text) => text.replace("- ipfs", "ipfs")],
  ["something after the end", plain, (text) => `${text}\nHello: world`],
  ["field twice", plain, (text) => text.replace("Version: 1\n", "Version: 1\nVersion: 1\n")],
];
const refused = CHANGES.map(([name, text, change]) => {
  const changed = change(text);
  try {
    new SiweMessage(changed);
    return { name, text: changed, siwe: null };
  } catch (error) {
    return { name, text: changed, siwe: String(error?.error?.type ?? error?.type ?? error?.message ?? error).split("\n")[0] };
  }
});

const source = "Written and judged by siwe 3.0.0 and viem 2.57.20 (npm), signed by viem with keys that guard nothing.";
console.log(JSON.stringify({ source, vectors, verdicts, refused }, null, 1));
