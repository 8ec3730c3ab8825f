//! How records are written as bytes: coins and their keys, header records, undo records. docs/SCHEMA.md shows them.
//! Knows no disk. Every decoder is total: bytes of any kind give a value or a [`DecodeError`], and never an allocation
//! larger than the bytes justify.

#[cfg(test)]
mod tests;

use super::{FilePos, HeaderRecord};
use crate::coins::Coin;
use bincode::Options;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget, OutPoint, TxMerkleNode, Txid};
use serde::{Deserialize, Serialize};

/// What is wrong with a record's bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

impl DecodeError {
    fn new(what: &str) -> DecodeError {
        DecodeError(what.into())
    }
}

/// Vouts below this are one byte of a key; above, the first byte tells how many big-endian bytes follow.
const LONG_VOUT: u8 = 0xfc;

/// A coin's key as bytes: 33 for nearly all, 37 at most.
pub type CoinKey = smallvec::SmallVec<[u8; 36]>;

/// The key of a coin: the txid as hashed, then the vout in as few bytes as keep the order of numbers. Keys sort as
/// outpoints do.
pub fn encode_outpoint(outpoint: &OutPoint) -> CoinKey {
    let mut key = CoinKey::from_slice(outpoint.txid.as_byte_array());
    let bytes = outpoint.vout.to_be_bytes();
    let zeros = (outpoint.vout.leading_zeros() / 8) as usize;
    match bytes[3] {
        small if zeros >= 3 && small < LONG_VOUT => key.push(small),
        _ => {
            let zeros = zeros.min(3);
            key.push(LONG_VOUT + 3 - zeros as u8);
            key.extend_from_slice(&bytes[zeros..]);
        }
    }
    key
}

/// Reads a key back. Only the one encoding of each outpoint is accepted.
pub fn decode_outpoint(key: &[u8]) -> Result<OutPoint, DecodeError> {
    let wrong = || DecodeError::new("not the key of a coin");
    let (txid, vout) = key.split_first_chunk::<32>().ok_or_else(wrong)?;
    let (first, rest) = vout.split_first().ok_or_else(wrong)?;
    let vout = match first.checked_sub(LONG_VOUT) {
        None if rest.is_empty() => u32::from(*first),
        Some(more) if rest.len() == usize::from(more) + 1 => {
            rest.iter().fold(0, |vout, byte| vout << 8 | u32::from(*byte))
        }
        _ => return Err(wrong()),
    };
    let outpoint = OutPoint { txid: Txid::from_byte_array(*txid), vout };
    if encode_outpoint(&outpoint)[..] != *key {
        return Err(wrong());
    }
    Ok(outpoint)
}

/// The script templates that are stored as a tag and a hash: bytes before the hash, its length, bytes after it.
/// The tag is the place in this list; scripts of other forms have the tag [`RAW`] + length.
const TEMPLATES: [(&[u8], usize, &[u8]); 5] = [
    (&[0x76, 0xa9, 0x14], 20, &[0x88, 0xac]), // P2PKH
    (&[0xa9, 0x14], 20, &[0x87]),             // P2SH
    (&[0x00, 0x14], 20, &[]),                 // P2WPKH
    (&[0x00, 0x20], 32, &[]),                 // P2WSH
    (&[0x51, 0x20], 32, &[]),                 // P2TR
];

/// Tag of an empty raw script. One place is left for a template to come.
const RAW: u64 = 6;

/// Appends a coin's record: height and coinbase, amount, script.
pub fn encode_coin(coin: &Coin, out: &mut Vec<u8>) {
    put_number(u128::from(coin.height() << 1 | u32::from(coin.is_coinbase())), out);
    put_number(compress_amount(coin.value().to_sat()), out);
    let script = coin.script_pubkey().as_bytes();
    for (tag, (head, length, tail)) in TEMPLATES.iter().enumerate() {
        if script.len() == head.len() + length + tail.len() && script.starts_with(head) && script.ends_with(tail) {
            out.push(tag as u8);
            out.extend_from_slice(&script[head.len()..head.len() + length]);
            return;
        }
    }
    put_number(u128::from(RAW + script.len() as u64), out);
    out.extend_from_slice(script);
}

/// Reads a coin's record that takes all of `bytes`.
pub fn decode_coin(bytes: &[u8]) -> Result<Coin, DecodeError> {
    let mut rest = bytes;
    let coin = take_coin(&mut rest)?;
    if rest.is_empty() { Ok(coin) } else { Err(DecodeError::new("bytes after the coin")) }
}

fn take_coin(rest: &mut &[u8]) -> Result<Coin, DecodeError> {
    let code = u32::try_from(take_number(rest)?).map_err(|_| DecodeError::new("a height above 2^31"))?;
    let value = decompress_amount(take_number(rest)?).ok_or_else(|| DecodeError::new("an amount above 2^64"))?;
    let coin = |script: &[u8]| Coin::from_parts(value, script, code >> 1, code & 1 == 1);
    let tag = take_number(rest)?;
    if let Some((head, length, tail)) = TEMPLATES.get(tag.min(RAW.into()) as usize) {
        let hash = take_bytes(rest, *length as u128)?;
        let (mut script, mut length) = ([0; 35], 0);
        for part in [head, hash, tail] {
            script[length..length + part.len()].copy_from_slice(part);
            length += part.len();
        }
        return Ok(coin(&script[..length]));
    }
    let length = tag.checked_sub(RAW.into()).ok_or_else(|| DecodeError::new("an unknown script template"))?;
    take_bytes(rest, length).map(coin)
}

/// The undo record of a block: the coins that its transactions spend, in block order.
pub fn encode_undo(spent: &[Coin]) -> Vec<u8> {
    let mut out = Vec::with_capacity(3 + spent.len() * 32);
    put_number(spent.len() as u128, &mut out);
    spent.iter().for_each(|coin| encode_coin(coin, &mut out));
    out
}

/// Reads an undo record back.
pub fn decode_undo(bytes: &[u8]) -> Result<Vec<Coin>, DecodeError> {
    let mut rest = bytes;
    let count = take_number(&mut rest)?;
    // No coin takes less than three bytes: a claimed count allocates only what the bytes justify.
    if count > (rest.len() / 3) as u128 {
        return Err(DecodeError::new("more coins claimed than there are bytes"));
    }
    let coins = (0..count).map(|_| take_coin(&mut rest)).collect::<Result<Vec<_>, _>>()?;
    if rest.is_empty() { Ok(coins) } else { Err(DecodeError::new("bytes after the last spent coin")) }
}

/// Version of the header record's encoding, its first byte.
const HEADER_VERSION: u8 = 1;

/// A header record as it is written. The positions are file and offset.
#[derive(Serialize, Deserialize)]
struct StoredHeader {
    version: i32,
    previous: [u8; 32],
    merkle_root: [u8; 32],
    time: u32,
    bits: u32,
    nonce: u32,
    status: u8,
    tx_count: u32,
    size: u32,
    block: Option<(u32, u32)>,
    undo: Option<(u32, u32)>,
}

/// Little-endian integers of fixed length, and a bound on what a length may claim.
fn bincode_options() -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(256)
}

/// Encodes a header record.
pub fn encode_header(record: &HeaderRecord) -> Vec<u8> {
    let HeaderRecord { header, status, tx_count, size, block, undo } = *record;
    let pair = |pos: FilePos| (pos.file, pos.offset);
    let stored = StoredHeader {
        version: header.version.to_consensus(),
        previous: header.prev_blockhash.to_byte_array(),
        merkle_root: header.merkle_root.to_byte_array(),
        time: header.time,
        bits: header.bits.to_consensus(),
        nonce: header.nonce,
        status,
        tx_count,
        size,
        block: block.map(pair),
        undo: undo.map(pair),
    };
    let mut out = vec![HEADER_VERSION];
    bincode_options().serialize_into(&mut out, &stored).expect("a vector takes the bytes, and they are few");
    out
}

/// Reads a header record back.
pub fn decode_header(bytes: &[u8]) -> Result<HeaderRecord, DecodeError> {
    let Some((&HEADER_VERSION, rest)) = bytes.split_first() else {
        return Err(DecodeError::new("not a header record of version 1"));
    };
    let stored: StoredHeader = bincode_options().deserialize(rest).map_err(|error| DecodeError(error.to_string()))?;
    let pos = |(file, offset)| FilePos { file, offset };
    Ok(HeaderRecord {
        header: Header {
            version: Version::from_consensus(stored.version),
            prev_blockhash: BlockHash::from_byte_array(stored.previous),
            merkle_root: TxMerkleNode::from_byte_array(stored.merkle_root),
            time: stored.time,
            bits: CompactTarget::from_consensus(stored.bits),
            nonce: stored.nonce,
        },
        status: stored.status,
        tx_count: stored.tx_count,
        size: stored.size,
        block: stored.block.map(pos),
        undo: stored.undo.map(pos),
    })
}

/// Appends a number as Core's `VARINT` (src/serialize.h): seven bits a byte, most significant first, each byte but the
/// last with its top bit set, and one subtracted at each step so that a number has exactly one encoding.
pub(crate) fn put_number(mut number: u128, out: &mut Vec<u8>) {
    let mut bytes = [0; 19];
    let mut at = bytes.len() - 1;
    bytes[at] = number as u8 & 0x7f;
    while number > 0x7f {
        number = (number >> 7) - 1;
        at -= 1;
        bytes[at] = number as u8 & 0x7f | 0x80;
    }
    out.extend_from_slice(&bytes[at..]);
}

/// Takes a number off the front of `rest`. None that is stored reaches 2^72; larger ones are refused.
pub(crate) fn take_number(rest: &mut &[u8]) -> Result<u128, DecodeError> {
    let mut number = 0_u128;
    loop {
        let Some((byte, after)) = rest.split_first() else { return Err(DecodeError::new("it ends within a number")) };
        *rest = after;
        number = number << 7 | u128::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
        number += 1;
        if number >> 72 != 0 {
            return Err(DecodeError::new("a number too large"));
        }
    }
}

fn take_bytes<'a>(rest: &mut &'a [u8], length: u128) -> Result<&'a [u8], DecodeError> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let (taken, after) = rest.split_at_checked(length).ok_or_else(|| DecodeError::new("it ends within a script"))?;
    *rest = after;
    Ok(taken)
}

/// Makes round amounts short numbers, as Core's `CompressAmount` (src/compressor.cpp): the amount is `d · 10^e` with
/// `e` as large as it can be up to 9; then `e` and the last digit of `d`, which is not zero, share a factor of ninety.
pub(crate) fn compress_amount(value: u64) -> u128 {
    if value == 0 {
        return 0;
    }
    let (mut digits, mut exponent) = (value, 0);
    while exponent < 9 && digits % 10 == 0 {
        digits /= 10;
        exponent += 1;
    }
    let digits = u128::from(digits);
    match exponent {
        9 => 1 + (digits - 1) * 10 + 9,
        _ => 1 + (digits / 10 * 9 + digits % 10 - 1) * 10 + exponent,
    }
}

/// The reverse of [`compress_amount`], `None` above 2^64.
fn decompress_amount(number: u128) -> Option<u64> {
    let Some(number) = number.checked_sub(1) else { return Some(0) };
    let (rest, exponent) = (number / 10, (number % 10) as u32);
    let digits = if exponent == 9 { rest + 1 } else { rest / 9 * 10 + rest % 9 + 1 };
    u64::try_from(digits * 10_u128.pow(exponent)).ok()
}
