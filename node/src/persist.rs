//! The mempool on disk: read at a start, written at a stop, in Core's format. Knows no peer.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::Ordering;

use bitcoin::Txid;
use groat_chain::mempool::{Dump, Dumped};
use parking_lot::Mutex;
use tracing::{info, warn};

use crate::clock;
use crate::handle::{NodeHandle, Stopped};
use crate::requests::Purpose;

/// Name of the file in the folder of the network. Core's name.
pub const FILE: &str = "mempool.dat";

/// Offers all that is stored to the node, as if it came anew. A file that is damaged is told of; the next stop writes a new one.
pub fn load(node: &NodeHandle, path: &Path) {
    match std::fs::read(path).map(Dump::decode) {
        Ok(Ok(dump)) => {
            let Ok(Loaded { taken, others }) = offer(node, dump, Trust::ALL) else { return };
            info!("mempool: {taken} stored transactions taken, {others} not");
        }
        Ok(Err(error)) => warn!("mempool: {} is not read: {error}", path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => warn!("mempool: {} is not read: {error}", path.display()),
    }
    node.loaded.store(true, Ordering::Release);
}

/// What is believed of a file beside its transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    /// When they came; otherwise they come now.
    pub times: bool,
    /// What the operator adds to fees.
    pub deltas: bool,
    /// Which no peer has asked for yet.
    pub unbroadcast: bool,
}

impl Trust {
    /// It is our own.
    const ALL: Trust = Trust { times: true, deltas: true, unbroadcast: true };
}

/// Offers all that a file holds to the node. None: it cannot be read, or is damaged.
pub fn import(node: &NodeHandle, path: &Path, trust: Trust) -> Result<Option<()>, Stopped> {
    let Some(dump) = std::fs::read(path).ok().and_then(|bytes| Dump::decode(bytes).ok()) else { return Ok(None) };
    offer(node, dump, trust).map(|_| Some(()))
}

/// How many transactions the pool took.
struct Loaded {
    taken: usize,
    others: usize,
}

fn offer(node: &NodeHandle, dump: Dump, trust: Trust) -> Result<Loaded, Stopped> {
    let mut loaded = Loaded { taken: 0, others: 0 };
    let Dump { transactions, deltas, unbroadcast } = dump;
    let oldest = u64::from(clock::now()).saturating_sub(node.mempool().read().policy().expiry);
    for Dumped { tx, time, delta } in transactions {
        if delta != 0 && trust.deltas {
            let txid = tx.compute_txid();
            node.with_mempool(move |pool| pool.prioritise(txid, delta))?;
        }
        let time = if trust.times { u64::try_from(time).unwrap_or(0) } else { clock::now().into() };
        let taken = time > oldest && node.offer(tx, time, Purpose::Quietly)?.is_ok();
        *(if taken { &mut loaded.taken } else { &mut loaded.others }) += 1;
    }
    let deltas = if trust.deltas { deltas } else { Default::default() };
    node.with_mempool(move |pool| deltas.into_iter().for_each(|(txid, delta)| pool.prioritise(txid, delta)))?;
    for txid in unbroadcast.into_iter().filter(|_| trust.unbroadcast) {
        let wtxid = node.mempool().read().get(&txid).map(|entry| entry.wtxid);
        wtxid.map(|wtxid| node.broadcast(txid, wtxid, true)).transpose()?;
    }
    Ok(loaded)
}

/// Writes the pool beside what is stored and puts it in its place when it is whole on disk.
/// `unbroadcast` are the transactions that no peer has asked for yet.
pub fn save(node: &NodeHandle, unbroadcast: BTreeSet<Txid>, path: &Path) -> io::Result<()> {
    let dump = node.mempool().read().dump(unbroadcast);
    write(&dump.encode(rand::random()), path)
}

fn write(bytes: &[u8], path: &Path) -> io::Result<()> {
    /// One at a time: others would write to the same new file.
    static WRITING: Mutex<()> = Mutex::new(());
    let _alone = WRITING.lock();
    let new = path.with_extension("dat.new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    // The name, too, has to be on disk.
    std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_saves_at_the_same_time_leaves_one_whole_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE);
        let save = |length: usize| {
            for _ in 0..20 {
                write(&vec![length as u8; length << 12], &path).expect("it is written");
                let read = std::fs::read(&path).expect("it is there");
                let whole = read.iter().all(|byte| usize::from(*byte) << 12 == read.len());
                assert!(whole, "{} bytes of more than one", read.len());
            }
        };
        std::thread::scope(|scope| (1..5).for_each(|length| drop(scope.spawn(move || save(length)))));
    }
}
