"""The local development chain: a JSON-RPC door over HTTP on py-evm that keeps its chain in one SQLite file.

`python -m fallow_stack.chain --listen HOST:PORT --data DIR` runs it. It mines a block at each transaction, answers with
the words of go-ethereum, and holds development money only.

settings  the environment
errors    what a call is refused with
store     py-evm's database, the log index and the settings in SQLite; one transaction a block
pool      transactions that wait for their nonce or for a lower base fee
fields    reading JSON-RPC parameters, spelling results
encode    blocks, transactions and receipts as JSON
rules     what makes a transaction acceptable before it is executed
node      the chain itself: mine, execute, look up
methods   the table of JSON-RPC methods
door      JSON-RPC framing over HTTP
"""
