//! What a node remembers of its peers from run to run, in the folder of its chain: `peers.dat` (the peer book),
//! `anchors.dat` (the peers for blocks only: whom to dial first), `banlist.json` (bans, as Core writes them). Decides
//! nothing about peers.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use groat_net::addrman::Book;
use groat_net::bans::{Ban, Bans, Subnet};
use groat_net::message::{AddrEntry, Kind, Message};
use groat_net::protocol::Memory;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

const PEERS: &str = "peers.dat";
/// The payload of an `addrv2` message.
const ANCHORS: &str = "anchors.dat";
const BANS: &str = "banlist.json";
/// The only version of an entry. Core: `CBanEntry::CURRENT_VERSION`.
const BAN_VERSION: i64 = 1;

/// The file of bans, with Core's keys.
#[derive(Serialize, Deserialize)]
struct BanList {
    banned_nets: Vec<BanEntry>,
}

#[derive(Serialize, Deserialize)]
struct BanEntry {
    version: i64,
    ban_created: i64,
    banned_until: i64,
    address: String,
}

/// The files.
#[derive(Clone, Debug)]
pub struct Files {
    folder: PathBuf,
    /// One writer at a time.
    writing: Arc<Mutex<()>>,
}

impl Files {
    /// The files in this folder.
    pub fn new(folder: PathBuf) -> Files {
        Files { folder, writing: Arc::default() }
    }

    /// Reads what there is; `now` in seconds since 1970; `automatic`: the node dials by itself, else the anchors stay for a
    /// run that does. A damaged peer book is an error, since a new one would be at the
    /// mercy of whoever is asked first. The anchors are taken but once: after a crash they may be what led to it.
    pub fn read(&self, now: u32, automatic: bool) -> anyhow::Result<Memory> {
        let book = match self.bytes(PEERS)? {
            None => None,
            Some(bytes) => {
                let path = self.folder.join(PEERS);
                Some(Book::from_bytes(&bytes, now).with_context(|| format!("{} cannot be used", path.display()))?)
            }
        };
        let anchors = if automatic { self.take_anchors()? } else { Vec::new() };
        let mut bans = self.bytes(BANS)?.map_or_else(Bans::default, |bytes| {
            read_bans(&bytes).unwrap_or_else(|error| {
                warn!("{BANS} cannot be read, no ban of it holds: {error}");
                Bans::default()
            })
        });
        bans.sweep(u64::from(now));
        Ok(Memory { book, anchors, bans })
    }

    fn take_anchors(&self) -> anyhow::Result<Vec<AddrEntry>> {
        let anchors = match self.bytes(ANCHORS)?.map(|bytes| Message::decode(Kind::AddrV2, bytes)) {
            Some(Message::AddrV2(anchors)) => anchors,
            _ => Vec::new(),
        };
        match fs::remove_file(self.folder.join(ANCHORS)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("anchors.dat cannot be removed")?,
            _ => {}
        }
        Ok(anchors)
    }

    fn bytes(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let path = self.folder.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
        }
    }

    /// Writes the peer book, as [`Book::to_bytes`] gives it.
    pub fn write_book(&self, book: Vec<u8>) {
        self.write(PEERS, &book);
    }

    /// Writes whom to dial first at the next start.
    pub fn write_anchors(&self, anchors: Vec<AddrEntry>) {
        self.write(ANCHORS, &Message::AddrV2(anchors).encode());
    }

    /// Writes the bans.
    pub fn write_bans(&self, bans: &Bans) {
        let time = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        let entry = |(subnet, ban): (&Subnet, &Ban)| BanEntry {
            version: BAN_VERSION,
            ban_created: time(ban.created),
            banned_until: time(ban.until),
            address: subnet.to_string(),
        };
        let list = BanList { banned_nets: bans.iter().map(entry).collect() };
        self.write(BANS, &serde_json::to_vec_pretty(&list).expect("plain keys and numbers"));
    }

    /// Writes a file whole or not at all. A failure is told and no more: the node can do without.
    fn write(&self, name: &str, bytes: &[u8]) {
        let _one = self.writing.lock();
        let (path, new) = (self.folder.join(name), self.folder.join(format!("{name}.new")));
        let written = || -> io::Result<()> {
            let mut file = fs::File::create(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        if let Err(error) = written() {
            error!("{} cannot be written: {error}", path.display());
        }
    }
}

/// Entries that make no sense are left out, as Core does.
fn read_bans(bytes: &[u8]) -> anyhow::Result<Bans> {
    let list: BanList = serde_json::from_slice(bytes)?;
    let mut bans = Bans::default();
    for entry in list.banned_nets.iter().filter(|entry| entry.version == BAN_VERSION) {
        let Ok(subnet) = entry.address.parse::<Subnet>() else {
            warn!("{BANS} names no subnet: {}", entry.address);
            continue;
        };
        // A ban that ended before 1970 is over in any case.
        let time = |seconds: i64| u64::try_from(seconds).unwrap_or(0);
        bans.add(subnet, Ban { created: time(entry.ban_created), until: time(entry.banned_until) });
    }
    Ok(bans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use groat_net::addr::{Host, NetAddr};

    fn files() -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files::new(folder.path().to_owned());
        (folder, files)
    }

    #[test]
    fn bans_are_written_as_core_does_and_read_again_until_they_are_over() {
        let (folder, files) = files();
        let mut bans = Bans::default();
        bans.add("1.2.3.0/24".parse().expect("a subnet"), Ban { created: 10, until: 100 });
        bans.add("2001:db8::1".parse().expect("a subnet"), Ban { created: 20, until: 200 });
        files.write_bans(&bans);
        let text = fs::read_to_string(folder.path().join(BANS)).expect("it is written");
        let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let first = serde_json::json!(
            { "version": 1, "ban_created": 10, "banned_until": 100, "address": "1.2.3.0/24" });
        assert_eq!(json["banned_nets"][0], first);
        assert_eq!(json["banned_nets"][1]["address"], "2001:db8::1/128");
        assert_eq!(files.read(50, true).expect("readable").bans, bans);
        assert_eq!(files.read(150, true).expect("readable").bans.len(), 1);
        fs::write(folder.path().join(BANS), "{").expect("writable");
        assert!(files.read(50, true).expect("bad bans do not stop the node").bans.is_empty());
    }

    #[test]
    fn one_ban_from_before_1970_leaves_the_others() {
        let (folder, files) = files();
        let entry = |address: &str, until: i64| serde_json::json!({ "version": 1, "ban_created": -5, "banned_until": until, "address": address });
        let list = serde_json::json!({ "banned_nets": [entry("1.2.3.4/32", -1), entry("5.6.7.8/32", 100)] });
        fs::write(folder.path().join(BANS), list.to_string()).expect("writable");
        let bans = files.read(50, true).expect("readable").bans;
        let left: Vec<String> = bans.iter().map(|(subnet, _)| subnet.to_string()).collect();
        assert_eq!(left, ["5.6.7.8/32"]);
    }

    #[test]
    fn the_book_comes_back_and_a_damaged_one_stops_the_start() {
        let (folder, files) = files();
        assert!(files.read(50, true).expect("nothing is there").book.is_none());
        let book = Book::new(&mut rand::rng());
        files.write_book(book.to_bytes());
        assert!(files.read(50, true).expect("readable").book.is_some_and(|book| book.is_empty()));
        fs::write(folder.path().join(PEERS), "no book").expect("writable");
        let error = format!("{:#}", files.read(50, true).expect_err("it is damaged"));
        assert!(error.contains("peers.dat") && error.contains("remove the file"), "{error}");
    }

    #[test]
    fn anchors_are_taken_once_by_a_node_that_dials() {
        let (_folder, files) = files();
        let addr = NetAddr { host: Host::TorV3([5; 32]), port: 8333 };
        let anchors = vec![AddrEntry { time: 5, services: 9, addr }];
        files.write_anchors(anchors.clone());
        assert!(files.read(50, false).expect("readable").anchors.is_empty(), "whom to dial the operator says");
        assert_eq!(files.read(50, true).expect("readable").anchors, anchors);
        assert!(files.read(50, true).expect("readable").anchors.is_empty());
    }
}
