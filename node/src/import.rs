//! `groatd import`: blocks from files in Core's framing, in any order, or from standard input.
//!
//! A first pass reads only the headers and notes where each block lies; then the blocks are read in the order of
//! their heights, decoded ahead in the pool. So files whose blocks are out of order cost no memory.

use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::Context;
use bitcoin::BlockHash;
use groat_chain::ledger::{Accepted, Incoming, Ledger, Step};
use groat_chain::params::Params;
use groat_chain::pool::{Pool, Promise};
use groat_chain::rejection::Rejection;
use groat_chain::rules::pow::check_proof_of_work;
use groat_chain::store::FilePos;
use groat_chain::store::import::{BlockFile, Frame, Frames};
use tracing::{info, warn};

use crate::clock::now;
use crate::progress::{Progress, Reading};

/// Blocks read and decoded ahead of their turn.
const DECODED_AHEAD: usize = 16;
/// Blocks accepted ahead of being connected, so that their coins can be fetched in time.
const ACCEPTED_AHEAD: u32 = 6;
/// Bytes of blocks from standard input that wait for their parent.
const MAX_ORPHAN_BYTES: usize = 64 << 20;
/// Time after which a wait for standard input looks whether it should end.
const LOOK_UP_EVERY: Duration = Duration::from_millis(100);

/// What an import came to.
#[derive(Debug, Default)]
pub struct Imported {
    /// Blocks stored that were not known before.
    pub blocks: u64,
    /// Blocks that were known.
    pub known: u64,
    /// Transactions of the new blocks.
    pub transactions: u64,
    /// Blocks whose parent never came.
    pub orphans: u64,
    /// Bytes that were no block of this network.
    pub skipped_bytes: u64,
    /// The first file without a block of this network, with a guess at what it is.
    pub foreign: Option<String>,
    /// Frames that hold a header of this network but no block.
    pub undecodable: u64,
    /// Blocks that broke a rule.
    pub refused: u64,
    /// The first block refused.
    pub first_refused: Option<(BlockHash, Rejection)>,
    /// Whether it was asked to stop early.
    pub stopped: bool,
}

impl Imported {
    fn refuse(&mut self, hash: BlockHash, rejection: Rejection) {
        info!("block {hash} refused: {rejection}");
        self.refused += 1;
        self.first_refused.get_or_insert((hash, rejection));
    }
}

/// What a file is that begins with `first` and holds no block of the network of `params`.
fn foreign(name: &str, first: Option<[u8; 4]>, params: &Params) -> String {
    let known = |magic| {
        let mut names = ["main", "test", "testnet4", "signet", "regtest"].into_iter();
        names.find(|name| Params::by_name(name).is_some_and(|params| params.magic == magic))
    };
    let guess = match first {
        None => "it is empty or nearly so".into(),
        Some(magic) if magic == params.magic => "it begins with the right magic, but no whole block follows".into(),
        Some(magic) => match known(magic) {
            Some(other) => format!("it begins with the magic of {other}, so --chain {other} may be meant"),
            None => format!("it does not begin with the magic of any known network ({magic:02x?})"),
        },
    };
    format!("no block of network {} is in {name}: {guess}", params.name)
}

/// Where the blocks of an import are.
pub enum Source {
    /// Files to copy from.
    Files(Vec<PathBuf>),
    /// The node's own block files, whose blocks stay where they are (`--reindex`).
    Own(Vec<(u32, PathBuf)>),
}

/// Imports all blocks of `source` and connects the best chain. `stop` ends it early, with nothing lost.
pub fn import(ledger: &mut Ledger, pool: &Arc<Pool>, source: Source, stop: &AtomicBool) -> anyhow::Result<Imported> {
    let mut imported = Imported::default();
    let (paths, own): (Vec<PathBuf>, Option<Vec<u32>>) = match source {
        Source::Files(paths) => (paths, None),
        Source::Own(files) => {
            let (numbers, paths) = files.into_iter().unzip();
            (paths, Some(numbers))
        }
    };
    let params = ledger.params().clone();
    let mut files = Vec::new();
    let mut frames = Vec::new();
    for path in &paths {
        let unreadable = || format!("cannot read {}", path.display());
        let file = BlockFile::open(path).with_context(unreadable)?;
        let mut search = file.frames(params.magic);
        let before = frames.len();
        while let Some(frame) = search.next_frame().with_context(unreadable)? {
            frames.push((files.len(), frame));
        }
        if frames.len() == before && own.is_none() {
            let first = file.first_magic().with_context(unreadable)?;
            imported.foreign.get_or_insert_with(|| foreign(&path.display().to_string(), first, &params));
        }
        if search.skipped() > 0 {
            warn!("{}: skipped {} bytes that are no block of this network", path.display(), search.skipped());
        }
        imported.skipped_bytes += search.skipped();
        files.push(Arc::new(file));
    }
    // While the node's own files are being indexed, none of them may be pruned.
    ledger.set_pruning(own.is_none());
    let order = in_order(ledger, frames, &mut imported);
    let mut run = Run::begin(ledger, pool, "import", order.len() as u64, stop);
    let mut decoding: VecDeque<(Decoding, Option<FilePos>)> = VecDeque::new();
    let mut order = order.into_iter();
    loop {
        while decoding.len() < DECODED_AHEAD && !run.stopped() {
            let Some((file, frame)) = order.next() else { break };
            let stored = own.as_ref().map(|own| FilePos { file: own[file], offset: frame.offset as u32 });
            decoding.push_back((run.decode(&files[file], frame), stored));
        }
        let Some((decoding, stored)) = decoding.pop_front() else { break };
        let incoming = decoding.wait(pool).context("cannot read a block file")?;
        run.take(incoming, stored, &mut imported)?;
    }
    run.end(&mut imported)?;
    ledger.set_pruning(!imported.stopped);
    Ok(imported)
}

/// Imports the blocks that `input` brings, as they come. A thread of its own reads and decodes, so that `stop` is
/// heeded while nothing comes.
pub fn import_stream(
    ledger: &mut Ledger,
    pool: &Arc<Pool>,
    mut input: impl Read + Send + 'static,
    stop: &AtomicBool,
) -> anyhow::Result<Imported> {
    let mut imported = Imported::default();
    let params = ledger.params().clone();
    let (sender, receiver) = mpsc::sync_channel(DECODED_AHEAD);
    let reading = {
        let params = params.clone();
        std::thread::spawn(move || -> std::io::Result<(u64, Vec<u8>)> {
            let mut first = Vec::new();
            input.by_ref().take(4).read_to_end(&mut first)?;
            let mut stream = Frames::stream(std::io::Cursor::new(first.clone()).chain(input), params.magic);
            while let Some(bytes) = stream.next_block()? {
                if sender.send(Incoming::decode(bytes, &params).ok()).is_err() {
                    break;
                }
            }
            Ok((stream.skipped(), first))
        })
    };
    let mut orphans: HashMap<BlockHash, Vec<Incoming>> = HashMap::new();
    let mut orphan_bytes = 0;
    let mut run = Run::begin(ledger, pool, "import", 0, stop);
    let mut frames = 0;
    loop {
        let incoming = match receiver.recv_timeout(LOOK_UP_EVERY) {
            _ if run.stopped() => break,
            Ok(incoming) => incoming,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        frames += 1;
        let Some(incoming) = incoming else {
            imported.undecodable += 1;
            continue;
        };
        let mut ready = vec![incoming];
        while let Some(incoming) = ready.pop() {
            let (hash, parent) = (incoming.block.hash, incoming.block.header.prev_blockhash);
            let known = hash == params.genesis_hash || run.ledger.tree().read().get(&parent).is_some();
            if !known {
                orphan_bytes += incoming.bytes.len();
                if orphan_bytes > MAX_ORPHAN_BYTES {
                    orphan_bytes -= incoming.bytes.len();
                    imported.orphans += 1;
                } else {
                    orphans.entry(parent).or_default().push(incoming);
                }
                continue;
            }
            run.take(Some(incoming), None, &mut imported)?;
            for child in orphans.remove(&hash).into_iter().flatten() {
                orphan_bytes -= child.bytes.len();
                ready.push(child);
            }
        }
    }
    imported.orphans += orphans.values().map(|children| children.len() as u64).sum::<u64>();
    run.end(&mut imported)?;
    if !imported.stopped {
        let (skipped, first) = reading.join().expect("reading does not panic").context("cannot read standard input")?;
        imported.skipped_bytes = skipped;
        if frames == 0 {
            imported.foreign = Some(foreign("standard input", first.first_chunk().copied(), &params));
        }
    }
    Ok(imported)
}

/// Connects what is stored and not connected yet: after `--reindex-chainstate`, or where the last run ended early.
pub fn catch_up(ledger: &mut Ledger, pool: &Arc<Pool>, stop: &AtomicBool) -> anyhow::Result<Imported> {
    let mut imported = Imported::default();
    let total = u64::from(ledger.blocks_to_connect());
    Run::begin(ledger, pool, "connect", total, stop).end(&mut imported)?;
    Ok(imported)
}

/// Accepts the headers of all frames, parents first, and gives the frames of blocks not known yet by height.
fn in_order(ledger: &mut Ledger, frames: Vec<(usize, Frame)>, imported: &mut Imported) -> Vec<(usize, Frame)> {
    let mut children: HashMap<BlockHash, Vec<usize>> = HashMap::new();
    for (number, (_, frame)) in frames.iter().enumerate() {
        children.entry(frame.header.prev_blockhash).or_default().push(number);
    }
    let now = now();
    let tree = ledger.tree();
    let mut queue: VecDeque<BlockHash> =
        children.keys().filter(|parent| tree.read().get(parent).is_some()).copied().collect();
    let genesis = ledger.params().genesis_hash;
    let mut ordered = Vec::with_capacity(frames.len());
    while let Some(parent) = queue.pop_front() {
        for number in children.remove(&parent).unwrap_or_default() {
            let header = &frames[number].1.header;
            let hash = header.block_hash();
            match ledger.accept_header(header, now) {
                Ok(id) => {
                    let node = tree.read().node(id).clone();
                    if node.block().is_some() {
                        imported.known += 1;
                    } else {
                        ordered.push((node.height, number));
                    }
                }
                Err(rejection) => imported.refuse(hash, rejection),
            }
            queue.push_back(hash);
        }
    }
    for number in children.into_values().flatten() {
        let header = &frames[number].1.header;
        let hash = header.block_hash();
        if hash == genesis {
            imported.known += 1;
        } else if check_proof_of_work(hash, header.bits, ledger.params()).is_ok() {
            imported.orphans += 1;
        }
        // Anything else is bytes that look like a frame.
    }
    // Stable: of one height the first in the files comes first.
    ordered.sort_by_key(|(height, number)| (*height, *number));
    ordered.into_iter().map(|(_, number)| frames[number]).collect()
}

/// A block being read and decoded; none if its bytes are no block after all.
type Decoding = Promise<std::io::Result<Option<Incoming>>>;

/// An import under way.
struct Run<'a> {
    ledger: &'a mut Ledger,
    pool: &'a Arc<Pool>,
    progress: Progress,
    reading: Reading,
    now: u32,
    stop: &'a AtomicBool,
}

impl<'a> Run<'a> {
    fn begin(
        ledger: &'a mut Ledger,
        pool: &'a Arc<Pool>,
        what: &'static str,
        total: u64,
        stop: &'a AtomicBool,
    ) -> Run<'a> {
        let progress = Progress::begin(what, total);
        Run { ledger, pool, progress, reading: Reading::default(), now: now(), stop }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn decode(&self, file: &Arc<BlockFile>, frame: Frame) -> Decoding {
        let (file, params) = (file.clone(), self.ledger.params().clone());
        self.pool.ask(true, move || {
            let bytes = file.read(&frame)?;
            Ok(Incoming::decode(bytes, &params).ok())
        })
    }

    /// Takes one block and connects what lies far enough behind it.
    fn take(
        &mut self,
        incoming: Option<Incoming>,
        stored: Option<FilePos>,
        imported: &mut Imported,
    ) -> anyhow::Result<()> {
        self.reading.blocks += 1;
        let Some(incoming) = incoming else {
            imported.undecodable += 1;
            return Ok(());
        };
        let (hash, transactions) = (incoming.block.hash, incoming.block.transactions.len() as u64);
        match self.ledger.accept_block(incoming, stored, self.now)? {
            Ok(Accepted::New(_)) => {
                imported.blocks += 1;
                imported.transactions += transactions;
                self.reading.transactions += transactions;
            }
            Ok(Accepted::Known(_)) => imported.known += 1,
            Err(rejection) => imported.refuse(hash, rejection),
        }
        while self.ledger.blocks_to_connect() > ACCEPTED_AHEAD {
            self.step(imported)?;
        }
        self.reading.height = self.ledger.height();
        self.reading.cache = self.ledger.table_memory();
        self.progress.show(self.reading);
        Ok(())
    }

    /// One step; false when there is nothing left to do.
    fn step(&mut self, imported: &mut Imported) -> anyhow::Result<bool> {
        match self.ledger.activate_best_chain()? {
            Step::Idle => return Ok(false),
            Step::Moved(_) => {}
            Step::Refused(hash, rejection) => imported.refuse(hash, rejection),
        }
        Ok(true)
    }

    fn end(mut self, imported: &mut Imported) -> anyhow::Result<()> {
        let connecting = self.reading.blocks == 0;
        while !self.stopped() && self.step(imported)? {
            self.reading.height = self.ledger.height();
            self.reading.blocks += u64::from(connecting);
            self.progress.show(self.reading);
        }
        while !self.stopped() && self.ledger.catch_up_indexes(true)? {}
        imported.stopped = self.stopped();
        self.ledger.flush()?;
        self.progress.end();
        Ok(())
    }
}
