//! The file that holds a whole coin set, as Core's `dumptxoutset` writes it (`src/node/utxo_snapshot.h`): byte for byte
//! the same for the same coins. Knows no store and no disk: the coins are shown to it one by one, in their order.

use std::io::{self, Seek, SeekFrom, Write};

use bitcoin::consensus::encode::{VarInt, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, Script, Txid};
use secp256k1::PublicKey;

use crate::coins::Coin;
use crate::store::codec::{compress_amount, put_number};

#[cfg(test)]
mod tests;

/// How the file begins. Core's name and value.
const SNAPSHOT_MAGIC_BYTES: [u8; 5] = *b"utxo\xff";
/// Core: `SnapshotMetadata::VERSION`.
const VERSION: u16 = 2;
/// Where the number of coins stands: after magic, version, network and block.
const COUNT_OFFSET: u64 = 5 + 2 + 4 + 32;
/// Outputs from here on do not come in the order of their numbers: Core's keys sort by their bytes, and a `VARINT` of
/// three bytes may sort before one of two.
const FIRST_OF_THREE_BYTES: u32 = 16_512;

/// A file under way.
pub struct SnapshotWriter<W> {
    out: W,
    count: u64,
    /// The transaction whose coins are being gathered.
    txid: Option<Txid>,
    /// Those coins: number of the output, and its record.
    coins: Vec<(u32, Vec<u8>)>,
}

impl<W: Write + Seek> SnapshotWriter<W> {
    /// Begins a file of the coins as of the block `base`.
    pub fn new(mut out: W, network: [u8; 4], base: BlockHash) -> io::Result<SnapshotWriter<W>> {
        out.write_all(&SNAPSHOT_MAGIC_BYTES)?;
        out.write_all(&VERSION.to_le_bytes())?;
        out.write_all(&network)?;
        out.write_all(base.as_byte_array())?;
        // How many there are is known at the end.
        out.write_all(&[0; 8])?;
        Ok(SnapshotWriter { out, count: 0, txid: None, coins: Vec::new() })
    }

    /// Adds a coin. They come in the order of their outpoints.
    pub fn add(&mut self, outpoint: &OutPoint, coin: &Coin) -> io::Result<()> {
        if self.txid != Some(outpoint.txid) {
            self.write_transaction()?;
            self.txid = Some(outpoint.txid);
        }
        let mut record = Vec::with_capacity(40);
        encode_coin(coin, &mut record);
        self.coins.push((outpoint.vout, record));
        Ok(())
    }

    /// Ends the file; gives the number of coins in it.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        self.write_transaction()?;
        self.out.seek(SeekFrom::Start(COUNT_OFFSET))?;
        self.out.write_all(&self.count.to_le_bytes())?;
        self.out.flush()?;
        Ok((self.out, self.count))
    }

    fn write_transaction(&mut self) -> io::Result<()> {
        let Some(txid) = self.txid.take() else { return Ok(()) };
        if self.coins.last().is_some_and(|(vout, _)| *vout >= FIRST_OF_THREE_BYTES) {
            self.coins.sort_by_cached_key(|(vout, _)| {
                let mut key = Vec::new();
                put_number(u128::from(*vout), &mut key);
                key
            });
        }
        self.count += self.coins.len() as u64;
        self.out.write_all(txid.as_byte_array())?;
        write_compact_size(self.coins.len() as u64, &mut self.out)?;
        for (vout, record) in self.coins.drain(..) {
            write_compact_size(vout.into(), &mut self.out)?;
            self.out.write_all(&record)?;
        }
        Ok(())
    }
}

fn write_compact_size(number: u64, mut out: impl Write) -> io::Result<()> {
    out.write_all(&serialize(&VarInt(number)))
}

/// Appends a coin as Core serializes it: height and coinbase, amount, script. Core: `Coin::Serialize`.
fn encode_coin(coin: &Coin, out: &mut Vec<u8>) {
    put_number(u128::from(coin.height() << 1 | u32::from(coin.is_coinbase())), out);
    put_number(compress_amount(coin.value().to_sat()), out);
    match compress_script(coin.script_pubkey()) {
        Some((tag, hash)) => {
            out.push(tag);
            out.extend_from_slice(hash);
        }
        None => {
            /// Tags of compressed scripts. Core: `ScriptCompression::nSpecialScripts`.
            const SPECIAL_SCRIPTS: u128 = 6;
            let script = coin.script_pubkey().as_bytes();
            put_number(SPECIAL_SCRIPTS + script.len() as u128, out);
            out.extend_from_slice(script);
        }
    }
}

/// The scripts that have a short form: its tag, and what follows it. Core: `CompressScript`.
fn compress_script(script: &Script) -> Option<(u8, &[u8])> {
    match script.as_bytes() {
        [0x76, 0xa9, 0x14, hash @ .., 0x88, 0xac] if hash.len() == 20 => Some((0, hash)),
        [0xa9, 0x14, hash @ .., 0x87] if hash.len() == 20 => Some((1, hash)),
        [0x21, tag @ (2 | 3), x @ .., 0xac] if x.len() == 32 => Some((*tag, x)),
        [0x41, key @ .., 0xac] if key.len() == 65 && key[0] == 4 && PublicKey::from_slice(key).is_ok() => {
            Some((4 | key[64] & 1, &key[1..33]))
        }
        _ => None,
    }
}
