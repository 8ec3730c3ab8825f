//! The peer book as bytes for a file. Opens none.

use bincode::Options;

use super::Book;
use super::entry::Entry;

/// Version of [`Book::to_bytes`].
const FORMAT: u8 = 1;
/// Longest file that is read.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// The book is no book.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// Written by a later version.
    #[error("the peer book has format {0}, this program reads {FORMAT}; remove the file to begin a new one")]
    Format(u8),
    /// Damaged. The cause is in the sentence, and so no source of its own.
    #[error("the peer book is damaged ({0}); remove the file to begin a new one")]
    Damaged(bincode::Error),
}

impl Book {
    /// The book as bytes for a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let entries: Vec<&Entry> = self.entries.iter().flatten().collect();
        coding().serialize(&(FORMAT, self.key, entries)).expect("a book within its bounds can be written")
    }

    /// Reads what [`Book::to_bytes`] wrote. New addresses keep one of their places.
    pub fn from_bytes(bytes: &[u8], now: u32) -> Result<Book, BookError> {
        match bytes.first() {
            Some(&FORMAT) | None => {}
            Some(&other) => return Err(BookError::Format(other)),
        }
        let (_, key, entries): (u8, (u64, u64), Vec<Entry>) =
            coding().deserialize(bytes).map_err(BookError::Damaged)?;
        let mut book = Book::with_key(key);
        for mut entry in entries {
            let tried = std::mem::take(&mut entry.tried);
            let (addr, source) = (entry.addr, entry.source);
            if book.find(&addr).is_some() || !addr.host.is_routable() {
                continue;
            }
            let id = book.insert(entry);
            let at = book.tried_place(&addr);
            if tried && book.tried.get(at).is_none() {
                book.tried.put(at, id);
                book.set_tried(id, true);
            } else {
                book.put_new(id, &source, now);
            }
        }
        Ok(book)
    }
}

fn coding() -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(MAX_BYTES)
}
