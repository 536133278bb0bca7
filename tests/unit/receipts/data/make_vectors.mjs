// Makes merkle_vectors.json with @openzeppelin/merkle-tree 1.0.8 (MIT), the library whose format our trees have.
//
//     npm install --ignore-scripts --prefix FOLDER @openzeppelin/merkle-tree@1.0.8
//     node make_vectors.mjs > merkle_vectors.json        (a copy of this file inside FOLDER, where it finds the library)
//
// The values come from a small fixed generator, so that the output is the same each time. Small trees have every proof;
// the larger ones have some.
import { StandardMerkleTree } from "@openzeppelin/merkle-tree";

const PAYOUT = ["bytes32", "uint256", "address", "bytes32", "address", "uint256"];

function generator(seed) {
  let state = BigInt(seed);
  return (bits) => {
    let value = 0n;
    for (let have = 0; have < bits; have += 32) {
      state = (state * 6364136223846793005n + 1442695040888963407n) % 2n ** 64n;
      value = (value << 32n) | (state >> 32n);
    }
    return value & ((1n << BigInt(bits)) - 1n);
  };
}

const hex = (value, bytes) => "0x" + value.toString(16).padStart(bytes * 2, "0");

function payouts(count, seed, duplicates) {
  const next = generator(seed);
  const vault = hex(next(160), 20);
  const rows = [];
  for (let index = 0; index < count; index += 1) {
    if (duplicates && index % 5 === 4) {
      rows.push(rows[index - 1]);
      continue;
    }
    rows.push([TAG, "31337", vault, hex(next(128), 32), hex(next(160), 20), next(62).toString()]);
  }
  return rows;
}

// keccak256("fallow.leaf.payout.v1")
const TAG = "0x393961b1e0c268c0276f826261658c33c507b4ebcf0568ce545b90863e7f1885";

const trees = [];
for (const [count, duplicates] of [
  [1, false], [2, false], [3, false], [4, false], [5, true], [7, false], [8, false], [16, true], [33, false],
  [257, false], [1000, true],
]) {
  const rows = payouts(count, count, duplicates);
  const tree = StandardMerkleTree.of(rows, PAYOUT);
  const whole = count <= 33;
  const chosen = whole ? rows.map((_, index) => index) : [0, 1, 2, Math.floor(count / 2), count - 2, count - 1];
  trees.push({
    count,
    root: tree.root,
    vault: rows[0][2],
    payouts: rows.map((row) => row.slice(3)),
    proofs: chosen.map((index) => ({ index, leaf: tree.leafHash(rows[index]), proof: tree.getProof(index) })),
  });
}
const text = trees.map((tree) => "  " + JSON.stringify(tree)).join(",\n");
console.log(`{"made_with": "@openzeppelin/merkle-tree 1.0.8", "types": ${JSON.stringify(PAYOUT)}, "trees": [\n${text}\n]}`);
