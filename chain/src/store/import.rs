//! Reads block files that others wrote: finds frames (magic, length, block), skips what is none, undoes Core's XOR.
//! Judges no block: a frame is bytes that look like one.

#[cfg(test)]
mod tests;

use crate::rules::limits::MAX_BLOCK_SERIALIZED_SIZE;
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A block within a file or stream, found but not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Offset of the block's first byte.
    pub offset: u64,
    /// Bytes of the block.
    pub length: u32,
    /// Its first 80 bytes.
    pub header: Header,
}

/// A file of blocks on disk. Frames are found in one pass ([`BlockFile::frames`]) that reads little of it, and read
/// later in any order, by any thread ([`BlockFile::read`]).
pub struct BlockFile {
    file: File,
    key: Option<[u8; 8]>,
}

impl BlockFile {
    /// Opens `path`. If `xor.dat` lies beside it (Core's `-blocksxor`), its eight bytes are applied to what is read.
    pub fn open(path: &Path) -> io::Result<BlockFile> {
        let key = match std::fs::read(path.with_file_name("xor.dat")) {
            Ok(key) => Some(key.try_into().map_err(|key: Vec<u8>| {
                let said = format!("xor.dat beside {} has {} bytes, not 8", path.display(), key.len());
                io::Error::new(io::ErrorKind::InvalidData, said)
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(BlockFile { file: File::open(path)?, key })
    }

    /// Bytes of the file.
    pub fn length(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    /// The first four bytes, where a file of blocks has the magic of its network.
    pub fn first_magic(&self) -> io::Result<Option<[u8; 4]>> {
        let mut magic = [0; 4];
        Ok((self.read_at(0, &mut magic)? == 4).then_some(magic))
    }

    /// The frames of the network with `magic`, in order.
    pub fn frames(&self, magic: [u8; 4]) -> Frames<&BlockFile> {
        Frames::new(self, magic)
    }

    /// Reads the block of a frame found in this file.
    pub fn read(&self, frame: &Frame) -> io::Result<Vec<u8>> {
        let mut block = vec![0; frame.length as usize];
        if self.read_at(frame.offset, &mut block)? < block.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(block)
    }

    fn read_at(&self, from: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut length = 0;
        while length < into.len() {
            match self.file.read_at(&mut into[length..], from + length as u64) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(key) = self.key {
            let places = (from % 8) as usize..;
            into[..length].iter_mut().zip(places).for_each(|(byte, place)| *byte ^= key[place % 8]);
        }
        Ok(length)
    }
}

/// Bytes by offset, as much of them as the frame search needs.
pub trait Source {
    /// Fills `into` from offset `from`; gives less only at the end.
    fn fill(&mut self, from: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Nothing before this offset will be asked for again.
    fn forget(&mut self, before: u64);
}

impl Source for &BlockFile {
    fn fill(&mut self, from: u64, into: &mut [u8]) -> io::Result<usize> {
        self.read_at(from, into)
    }

    fn forget(&mut self, _: u64) {}
}

/// A pipe. It holds one frame and a window at most.
pub struct Stream<R> {
    input: R,
    held: Vec<u8>,
    /// Offset of the first byte held.
    start: u64,
}

impl<R: Read> Source for Stream<R> {
    fn fill(&mut self, from: u64, into: &mut [u8]) -> io::Result<usize> {
        let from = (from - self.start) as usize;
        if let Some(missing) = (from + into.len()).checked_sub(self.held.len()) {
            (&mut self.input).take(missing as u64).read_to_end(&mut self.held)?;
        }
        let there = self.held.get(from..).unwrap_or_default();
        let length = there.len().min(into.len());
        into[..length].copy_from_slice(&there[..length]);
        Ok(length)
    }

    fn forget(&mut self, before: u64) {
        let passed = (before - self.start).min(self.held.len() as u64);
        self.held.drain(..passed as usize);
        self.start += passed;
    }
}

/// The frame search over a source.
///
/// A frame is the magic, a length from 80 to [`MAX_BLOCK_SERIALIZED_SIZE`], and that many bytes. Where neither a frame,
/// nor zeros, nor the end follows, its length may be wrong: then the search goes on inside it, so that a damaged length
/// cannot hide the frames behind it.
pub struct Frames<S> {
    source: S,
    magic: [u8; 4],
    /// Where the search stands.
    at: u64,
    /// End of the furthest frame found.
    covered: u64,
    window: Vec<u8>,
    window_start: u64,
    skipped: u64,
    /// Zeros since the last byte skipped, if the stretch began with something else: counted once more of it follows.
    zeros: Option<u64>,
}

/// Bytes looked at in one go.
const WINDOW: usize = 1 << 14;

impl<R: Read> Frames<Stream<R>> {
    /// Searches a pipe.
    pub fn stream(input: R, magic: [u8; 4]) -> Frames<Stream<R>> {
        Frames::new(Stream { input, held: Vec::new(), start: 0 }, magic)
    }

    /// The next block itself.
    pub fn next_block(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(frame) = self.next_frame()? else { return Ok(None) };
        let mut block = vec![0; frame.length as usize];
        let length = self.source.fill(frame.offset, &mut block)?;
        assert_eq!(length, block.len(), "a frame is found only when all its bytes were there");
        Ok(Some(block))
    }
}

impl<S: Source> Frames<S> {
    fn new(source: S, magic: [u8; 4]) -> Frames<S> {
        let (at, covered, window_start, skipped) = (0, 0, 0, 0);
        Frames { source, magic, at, covered, window: Vec::new(), window_start, skipped, zeros: None }
    }

    /// The next frame, or `None` at the end.
    pub fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        self.source.forget(self.at);
        while let Some(byte) = self.peek::<1>(self.at)? {
            if byte[0] == self.magic[0]
                && let Some(frame) = self.frame_here()?
            {
                return Ok(Some(frame));
            }
            self.skip(byte[0]);
        }
        Ok(None)
    }

    /// Bytes passed so far that belong to no frame. Zeros at an edge of such a stretch (preallocated space) are not
    /// counted.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn frame_here(&mut self) -> io::Result<Option<Frame>> {
        let Some(head) = self.peek::<88>(self.at)? else { return Ok(None) };
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if head[..4] != self.magic || !(80..=MAX_BLOCK_SERIALIZED_SIZE as u32).contains(&length) {
            return Ok(None);
        }
        let (offset, end) = (self.at + 8, self.at + 8 + u64::from(length));
        if self.source.fill(end - 1, &mut [0])? == 0 {
            return Ok(None);
        }
        let header = deserialize(&head[8..]).expect("any 80 bytes are a header");
        let next = self.peek::<4>(end)?;
        let plausible = next.is_none_or(|next| next == self.magic || next == [0; 4]);
        self.covered = self.covered.max(end);
        self.at = if plausible { end } else { offset + 80 };
        self.zeros = None;
        Ok(Some(Frame { offset, length, header }))
    }

    fn skip(&mut self, byte: u8) {
        if self.at >= self.covered {
            match (byte, &mut self.zeros) {
                (0, None) => {}
                (0, Some(zeros)) => *zeros += 1,
                (_, zeros) => self.skipped += 1 + zeros.replace(0).unwrap_or(0),
            }
        }
        self.at += 1;
        if self.at.is_multiple_of(WINDOW as u64) {
            self.source.forget(self.at);
        }
    }

    /// `N` bytes at `from`, or `None` if there are fewer.
    fn peek<const N: usize>(&mut self, from: u64) -> io::Result<Option<[u8; N]>> {
        let in_window = |start: u64, window: &[u8]| {
            let at = usize::try_from(from.checked_sub(start)?).ok()?;
            window.get(at..)?.first_chunk::<N>().copied()
        };
        if let Some(found) = in_window(self.window_start, &self.window) {
            return Ok(Some(found));
        }
        self.window.resize(WINDOW, 0);
        let length = self.source.fill(from, &mut self.window)?;
        self.window.truncate(length);
        self.window_start = from;
        Ok(in_window(from, &self.window))
    }
}
