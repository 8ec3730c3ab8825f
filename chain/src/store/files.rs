//! Append-only block and undo files in Core's framing: pairs `blk00000.dat` and `rev00000.dat`. Knows bytes and
//! positions, no block. A crash may leave a torn tail; opening cuts it off, so that no reader ever takes it for data.

#[cfg(test)]
mod tests;

use super::import::BlockFile;
use super::{FilePos, StoreError};
use crate::rules::limits::MAX_BLOCK_SERIALIZED_SIZE;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Magic and length before each record.
const HEAD: u64 = 8;

/// Checksum after each undo record.
const CHECKSUM: u64 = 32;

/// File handles kept open for reading and appending.
const MAX_HANDLES: usize = 16;

/// The flag that rebuilds what the block files can rebuild.
const REMEDY: &str = "--reindex";

/// Lengths of the two files of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Bytes of the block file.
    pub blocks: u32,
    /// Bytes of the undo file.
    pub undo: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Block,
    Undo,
}

impl Kind {
    fn of(self, ends: &mut Ends) -> &mut u32 {
        match self {
            Kind::Block => &mut ends.blocks,
            Kind::Undo => &mut ends.undo,
        }
    }
}

/// The block and undo files of a folder. All methods take `&self`; one append runs at a time, reads run beside it.
pub struct Files {
    folder: PathBuf,
    magic: [u8; 4],
    max_file: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pairs: BTreeMap<u32, Pair>,
    /// Files written since they were last synced.
    unsynced: BTreeSet<(u32, Kind)>,
    /// Whether a file was made since the folder was last synced.
    folder_changed: bool,
    /// Least recently used first.
    handles: Vec<((u32, Kind), Arc<File>)>,
}

#[derive(Clone, Copy, Default)]
struct Pair {
    ends: Ends,
    /// What of it is durable.
    synced: Ends,
    /// What was last told by [`Files::take_unrecorded`].
    recorded: Ends,
}

impl Files {
    /// Opens or makes `folder`. `known` are the ends that the last durable write recorded: what lies behind them is cut
    /// off. A pair of which nothing is recorded is kept up to its last whole frame (after a lost or rebuilt index).
    /// A block file ends before it is longer than `max_file`.
    pub fn open(
        folder: &Path,
        magic: [u8; 4],
        known: &BTreeMap<u32, Ends>,
        max_file: u32,
    ) -> Result<Files, StoreError> {
        fs::create_dir_all(folder).map_err(|error| failure("make", folder, &error))?;
        let files = Files { folder: folder.into(), magic, max_file, state: Mutex::default() };
        let mut state = State { folder_changed: true, ..State::default() };
        for (number, ends) in known {
            state.pairs.insert(*number, Pair { ends: *ends, synced: *ends, recorded: *ends });
        }
        for entry in fs::read_dir(folder).map_err(|error| failure("list", folder, &error))? {
            let name = entry.map_err(|error| failure("list", folder, &error))?.file_name();
            let Some((number, kind)) = name.to_str().and_then(parse_name) else { continue };
            let path = files.path(number, kind);
            let file = open_file(&path).map_err(|error| failure("open", &path, &error))?;
            let cut = |error| failure("repair", &path, &error);
            let length = file.metadata().map_err(cut)?.len();
            let end = match (known.get(&number), kind) {
                (Some(ends), _) => *kind.of(&mut ends.clone()),
                (None, Kind::Block) => files.last_block_end(&path).map_err(cut)?,
                (None, Kind::Undo) => files.whole_undo(&file, length).map_err(cut)?,
            };
            if length > u64::from(end) {
                file.set_len(end.into()).map_err(cut)?;
            }
            if !known.contains_key(&number) {
                *kind.of(&mut state.pairs.entry(number).or_default().ends) = end;
                state.unsynced.insert((number, kind));
            }
        }
        *files.state.lock() = state;
        Ok(files)
    }

    /// End of the last block that can be found: damage in the middle must not cost the blocks behind it.
    fn last_block_end(&self, path: &Path) -> io::Result<u32> {
        let file = BlockFile::open(path)?;
        let mut frames = file.frames(self.magic);
        let mut end = 0;
        while let Some(frame) = frames.next_frame()? {
            end = end.max(frame.offset + u64::from(frame.length));
        }
        u32::try_from(end).map_err(|_| io::Error::other("it is longer than 4 GiB"))
    }

    /// End of the last whole undo record, going from frame to frame.
    fn whole_undo(&self, file: &File, length: u64) -> io::Result<u32> {
        let mut end = 0_u64;
        while end + HEAD <= length {
            let mut head = [0; HEAD as usize];
            file.read_exact_at(&mut head, end)?;
            let next = end + HEAD + u64::from(frame_length(&head)) + CHECKSUM;
            if head[..4] != self.magic || next > length || u32::try_from(next).is_err() {
                break;
            }
            end = next;
        }
        Ok(end as u32)
    }

    /// Appends a block to the last pair, or to a new one when it would grow too long.
    pub(crate) fn append_block(&self, block: &[u8]) -> Result<FilePos, StoreError> {
        let mut state = self.state.lock();
        let (mut number, pair) = state.pairs.last_key_value().map_or_else(Default::default, |(n, pair)| (*n, *pair));
        let end = u64::from(pair.ends.blocks);
        if end != 0 && end + HEAD + block.len() as u64 > self.max_file.into() {
            number += 1;
        }
        self.append(&mut state, number, Kind::Block, &[block])
    }

    /// Appends the undo record of a block that lies in pair `file`, with a checksum over its place and its bytes.
    pub(crate) fn append_undo(&self, file: u32, undo: &[u8]) -> Result<FilePos, StoreError> {
        let mut state = self.state.lock();
        let end = state.pairs.get(&file).map_or(0, |pair| pair.ends.undo);
        let offset = end.saturating_add(HEAD as u32);
        let sum = checksum(FilePos { file, offset }, undo);
        self.append(&mut state, file, Kind::Undo, &[undo, &sum])
    }

    fn append(&self, state: &mut State, number: u32, kind: Kind, parts: &[&[u8]]) -> Result<FilePos, StoreError> {
        let path = self.path(number, kind);
        let start = *kind.of(&mut state.pairs.entry(number).or_default().ends);
        let too_long = || StoreError::Io(format!("{} would grow past 4 GiB", path.display()));
        let whole = parts.iter().map(|part| part.len() as u64).sum::<u64>() + HEAD;
        let end = u32::try_from(u64::from(start) + whole).map_err(|_| too_long())?;
        let length = u32::try_from(parts[0].len()).map_err(|_| too_long())?;

        let file = self.handle(state, number, kind, true)?;
        let mut head = [0; HEAD as usize];
        head[..4].copy_from_slice(&self.magic);
        head[4..].copy_from_slice(&length.to_le_bytes());
        let mut at = u64::from(start);
        for part in std::iter::once(&head[..]).chain(parts.iter().copied()) {
            file.write_all_at(part, at).map_err(|error| failure("write", &path, &error))?;
            at += part.len() as u64;
        }
        // Only now: a write that failed midway is overwritten by the next, or cut off at the next start.
        *kind.of(&mut state.pairs.entry(number).or_default().ends) = end;
        state.unsynced.insert((number, kind));
        Ok(FilePos { file: number, offset: start + HEAD as u32 })
    }

    /// Reads the block at `pos`.
    pub fn read_block(&self, pos: FilePos) -> Result<Vec<u8>, StoreError> {
        let block = self.read(pos, Kind::Block)?;
        if block.len() > MAX_BLOCK_SERIALIZED_SIZE {
            return Err(self.damaged(pos, Kind::Block, "a length no block has"));
        }
        Ok(block)
    }

    /// Reads a part of the block at `pos`.
    pub(crate) fn read_part(&self, pos: FilePos, from: u32, length: u32) -> Result<Vec<u8>, StoreError> {
        let (file, end) = self.open_at(pos, Kind::Block)?;
        let start = pos.offset.checked_add(from);
        let within = start.and_then(|start| start.checked_add(length)).is_some_and(|stop| stop <= end);
        let Some(start) = start.filter(|_| within) else {
            return Err(self.damaged(pos, Kind::Block, "the file ends before it"));
        };
        let mut part = vec![0; length as usize];
        file.read_exact_at(&mut part, start.into())
            .map_err(|error| failure("read", &self.path(pos.file, Kind::Block), &error))?;
        Ok(part)
    }

    /// Reads the undo record at `pos` and checks that it is the one that was written there.
    pub fn read_undo(&self, pos: FilePos) -> Result<Vec<u8>, StoreError> {
        let mut undo = self.read(pos, Kind::Undo)?;
        let sum = undo.split_off(undo.len() - CHECKSUM as usize);
        if sum != checksum(pos, &undo) {
            return Err(self.damaged(pos, Kind::Undo, "its checksum does not match"));
        }
        Ok(undo)
    }

    /// The file that a position is in, and its length.
    fn open_at(&self, pos: FilePos, kind: Kind) -> Result<(Arc<File>, u32), StoreError> {
        let mut state = self.state.lock();
        let Some(pair) = state.pairs.get_mut(&pos.file) else {
            return Err(self.damaged(pos, kind, "there is no such file"));
        };
        let end = *kind.of(&mut pair.ends);
        Ok((self.handle(&mut state, pos.file, kind, false)?, end))
    }

    /// The bytes of a frame, with the trailer.
    fn read(&self, pos: FilePos, kind: Kind) -> Result<Vec<u8>, StoreError> {
        let (file, end) = self.open_at(pos, kind)?;
        let wrong = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged(pos, kind, "the file ends before it"),
            _ => failure("read", &self.path(pos.file, kind), &error),
        };
        let start = pos.offset.checked_sub(HEAD as u32).filter(|_| pos.offset <= end);
        let start = start.ok_or_else(|| self.damaged(pos, kind, "the file ends before it"))?;
        let mut head = [0; HEAD as usize];
        file.read_exact_at(&mut head, start.into()).map_err(wrong)?;
        let trailer = if kind == Kind::Undo { CHECKSUM } else { 0 };
        let length = u64::from(frame_length(&head)) + trailer;
        if head[..4] != self.magic || length > u64::from(end - pos.offset) {
            return Err(self.damaged(pos, kind, "no frame begins there"));
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, pos.offset.into()).map_err(wrong)?;
        Ok(bytes)
    }

    /// Makes all that was appended durable. Appends may go on meanwhile; they belong to the next sync.
    pub fn sync(&self) -> Result<(), StoreError> {
        let (unsynced, folder_changed) = {
            let mut state = self.state.lock();
            let unsynced = std::mem::take(&mut state.unsynced);
            (unsynced, std::mem::take(&mut state.folder_changed))
        };
        // One file at a time: after an index was rebuilt these are all there are, more than may be open at once.
        for (number, kind) in unsynced {
            let (file, end) = {
                let mut state = self.state.lock();
                let Some(pair) = state.pairs.get_mut(&number) else { continue };
                let end = *kind.of(&mut pair.ends);
                (self.handle(&mut state, number, kind, false)?, end)
            };
            file.sync_data().map_err(|error| failure("write", &self.path(number, kind), &error))?;
            if let Some(pair) = self.state.lock().pairs.get_mut(&number) {
                *kind.of(&mut pair.synced) = end;
            }
        }
        if folder_changed {
            sync_folder(&self.folder)?;
        }
        Ok(())
    }

    /// Whether the block and the undo record that begin there are durable.
    pub(crate) fn is_synced(&self, block: Option<FilePos>, undo: Option<FilePos>) -> bool {
        let state = self.state.lock();
        let reaches = |pos: Option<FilePos>, kind: Kind| {
            pos.is_none_or(|pos| {
                let synced = state.pairs.get(&pos.file).map_or(0, |pair| *kind.of(&mut pair.synced.clone()));
                pos.offset < synced
            })
        };
        reaches(block, Kind::Block) && reaches(undo, Kind::Undo)
    }

    /// The pairs whose durable ends changed since this was last called: to be written with the records that refer to
    /// them, and given to [`Files::open`].
    pub(crate) fn take_unrecorded(&self) -> Vec<(u32, Ends)> {
        let mut state = self.state.lock();
        let changed = state.pairs.iter_mut().filter(|(_, pair)| pair.synced != pair.recorded);
        changed
            .map(|(number, pair)| {
                pair.recorded = pair.synced;
                (*number, pair.synced)
            })
            .collect()
    }

    /// The pairs there are, with the bytes each takes.
    pub fn list(&self) -> Vec<(u32, u64)> {
        let bytes = |ends: &Ends| u64::from(ends.blocks) + u64::from(ends.undo);
        self.state.lock().pairs.iter().map(|(number, pair)| (*number, bytes(&pair.ends))).collect()
    }

    /// Deletes a pair; `false` if it is the last one, which is being appended to, or unknown.
    pub fn delete(&self, number: u32) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        if state.pairs.last_key_value().is_none_or(|(last, _)| *last == number) || !state.pairs.contains_key(&number) {
            return Ok(false);
        }
        for kind in [Kind::Undo, Kind::Block] {
            let path = self.path(number, kind);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failure("delete", &path, &error));
                }
                _ => {}
            }
            state.unsynced.remove(&(number, kind));
        }
        state.handles.retain(|((open, _), _)| *open != number);
        state.pairs.remove(&number);
        Ok(true)
    }

    fn handle(&self, state: &mut State, number: u32, kind: Kind, make: bool) -> Result<Arc<File>, StoreError> {
        if let Some(at) = state.handles.iter().position(|(key, _)| *key == (number, kind)) {
            let handle = state.handles.remove(at);
            let file = handle.1.clone();
            state.handles.push(handle);
            return Ok(file);
        }
        let path = self.path(number, kind);
        let file = match open_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && make => {
                state.folder_changed = true;
                OpenOptions::new().read(true).write(true).create_new(true).open(&path)
            }
            opened => opened,
        };
        let file = Arc::new(file.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let what = path.display().to_string();
                StoreError::Damaged { what, detail: "the file is missing".into(), remedy: REMEDY }
            }
            _ => failure("open", &path, &error),
        })?);
        if state.handles.len() >= MAX_HANDLES {
            state.handles.remove(0);
        }
        state.handles.push(((number, kind), file.clone()));
        Ok(file)
    }

    fn path(&self, number: u32, kind: Kind) -> PathBuf {
        let name = if kind == Kind::Block { "blk" } else { "rev" };
        self.folder.join(format!("{name}{number:05}.dat"))
    }

    fn damaged(&self, pos: FilePos, kind: Kind, detail: &str) -> StoreError {
        let what = if kind == Kind::Block { "the block" } else { "the undo record" };
        let what = format!("{what} at byte {} of {}", pos.offset, self.path(pos.file, kind).display());
        StoreError::Damaged { what, detail: detail.into(), remedy: REMEDY }
    }
}

/// `blk00012.dat` is the block file of pair 12.
fn parse_name(name: &str) -> Option<(u32, Kind)> {
    let stem = name.strip_suffix(".dat")?;
    let (kind, digits) = match stem.split_at_checked(3)? {
        ("blk", digits) => (Kind::Block, digits),
        ("rev", digits) => (Kind::Undo, digits),
        _ => return None,
    };
    let number: u32 = digits.parse().ok()?;
    (format!("{number:05}") == digits).then_some((number, kind))
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn frame_length(head: &[u8; HEAD as usize]) -> u32 {
    u32::from_le_bytes([head[4], head[5], head[6], head[7]])
}

/// Covers the place too, so that a record read from the wrong place is found out.
fn checksum(pos: FilePos, undo: &[u8]) -> [u8; CHECKSUM as usize] {
    let mut engine = sha256d::Hash::engine();
    engine.input(&pos.file.to_le_bytes());
    engine.input(&pos.offset.to_le_bytes());
    engine.input(undo);
    sha256d::Hash::from_engine(engine).to_byte_array()
}

/// Makes new names in a folder durable.
fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failure("write", folder, &error))
}

/// One sentence on what the operating system refused, and what to do.
pub(super) fn failure(doing: &str, path: &Path, error: &io::Error) -> StoreError {
    let path = path.display();
    StoreError::Io(match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("the disk is full: cannot {doing} {path}; free some space and start again")
        }
        io::ErrorKind::PermissionDenied => format!("no permission to {doing} {path}; check its owner and mode"),
        io::ErrorKind::ReadOnlyFilesystem => format!("cannot {doing} {path}: its file system is read-only"),
        _ => format!("cannot {doing} {path}: {error}"),
    })
}
