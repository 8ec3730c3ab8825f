//! The basic filter of each block ([BIP-0158]) and the chain of their headers ([BIP-0157]): `-blockfilterindex`.
//!
//! [BIP-0157]: https://github.com/bitcoin/bips/blob/master/bip-0157.mediawiki
//! [BIP-0158]: https://github.com/bitcoin/bips/blob/master/bip-0158.mediawiki

use bitcoin::bip158::{FilterHash, FilterHeader, GcsFilterWriter};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Script};

use super::{Index, damaged};
use crate::block::Block;
use crate::coins::Coin;
use crate::store::{Row, Store, StoreError};

/// Bits of a remainder. Core: `BASIC_FILTER_P`.
const BASIC_FILTER_P: u8 = 19;
/// One in so many strangers matches. Core's name and value.
const BASIC_FILTER_M: u64 = 784_931;

/// The filter of a block: the scripts of the outputs that it makes, but for those that carry data, and of the coins that it
/// spends, given in block order. Core: `BasicFilterElements`.
pub fn basic_filter(block: &Block, spent: &[Coin]) -> Vec<u8> {
    let hash = block.hash.to_byte_array();
    let key = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| hash[at + byte]));
    let mut content = Vec::new();
    let mut writer = GcsFilterWriter::new(&mut content, key(0), key(8), BASIC_FILTER_M, BASIC_FILTER_P);
    let mut add = |script: &Script| {
        if !script.is_empty() {
            writer.add_element(script.as_bytes());
        }
    };
    let made = block.transactions.iter().flat_map(|transaction| &transaction.output);
    made.map(|output| &output.script_pubkey).filter(|script| !script.is_op_return()).for_each(|script| add(script));
    let inputs = block.transactions.iter().skip(1).map(|transaction| transaction.input.len()).sum();
    spent.iter().take(inputs).for_each(|coin| add(coin.script_pubkey()));
    writer.finish().expect("a vector takes the bytes");
    content
}

/// What is known of a filter without itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Hash of the filter.
    pub hash: FilterHash,
    /// Hash of that and of the parent's header.
    pub header: FilterHeader,
}

impl Header {
    fn read(row: &[u8]) -> Result<Header, StoreError> {
        let halves = row.split_at_checked(32);
        let halves = halves.and_then(|(hash, header)| {
            Some(Header { hash: FilterHash::from_slice(hash).ok()?, header: FilterHeader::from_slice(header).ok()? })
        });
        halves.ok_or_else(|| damaged(Index::Filters, "it is not of 64 bytes"))
    }
}

/// Headers lie together, apart from the filters: they are read by the thousand.
pub(super) fn header_key(hash: &BlockHash) -> Vec<u8> {
    [b"h", &hash.to_byte_array()[..]].concat()
}

fn filter_key(hash: &BlockHash) -> Vec<u8> {
    [b"f", &hash.to_byte_array()[..]].concat()
}

pub(super) fn rows(content: Vec<u8>, hash: &BlockHash, parent: Option<&[u8]>) -> Result<Vec<Row>, StoreError> {
    let before = parent.map(Header::read).transpose()?.map_or(FilterHeader::all_zeros(), |parent| parent.header);
    let filter_hash = FilterHash::hash(&content);
    let header = filter_hash.filter_header(&before);
    let value = [filter_hash.to_byte_array(), header.to_byte_array()].concat();
    Ok(vec![
        Row { index: Index::Filters, key: header_key(hash), value },
        Row { index: Index::Filters, key: filter_key(hash), value: content },
    ])
}

/// The filters of these blocks, as far as they are indexed.
pub fn filters(store: &dyn Store, blocks: &[BlockHash]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
    store.rows(Index::Filters, &blocks.iter().map(filter_key).collect::<Vec<_>>())
}

/// The headers of the filters of these blocks, as far as they are indexed.
pub fn headers(store: &dyn Store, blocks: &[BlockHash]) -> Result<Vec<Option<Header>>, StoreError> {
    let rows = store.rows(Index::Filters, &blocks.iter().map(header_key).collect::<Vec<_>>())?;
    rows.into_iter().map(|row| row.as_deref().map(Header::read).transpose()).collect()
}
