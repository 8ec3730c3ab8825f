"""Prints addresses.txt: what the words give in bip_utils (PyPI), a wallet library that shares no code with Groat's.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install bip_utils==2.12.3 && /tmp/v/bin/python addresses.py > addresses.txt
"""
from bip_utils import Bip39MnemonicGenerator, Bip39SeedGenerator, Bip44Changes
from bip_utils import Bip84, Bip84Coins, Bip86, Bip86Coins

CHAINS = {"main": "BITCOIN", "testnet4": "BITCOIN_TESTNET", "regtest": "BITCOIN_REGTEST"}
KINDS = {"segwit": (Bip84, Bip84Coins), "taproot": (Bip86, Bip86Coins)}
PLACES = [(0, 0), (0, 199), (1, 7)]

for size, passphrase in [(16, ""), (16, "25th"), (20, ""), (24, "Grüße, señor"), (28, ""), (32, ""), (32, "TREZOR")]:
    words = Bip39MnemonicGenerator().FromEntropy(bytes(range(size, 2 * size)))
    seed = Bip39SeedGenerator(words).Generate(passphrase)
    for chain, coin in CHAINS.items():
        for kind, (bip, coins) in KINDS.items():
            account = bip.FromSeed(seed, getattr(coins, coin)).Purpose().Coin().Account(0)
            for change, index in PLACES:
                branch = account.Change(Bip44Changes.CHAIN_INT if change else Bip44Changes.CHAIN_EXT)
                address = branch.AddressIndex(index).PublicKey().ToAddress()
                print(chain, kind, change, index, address, words, passphrase, sep="\t")
