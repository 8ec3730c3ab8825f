//! A peer that has a chain and serves it, light enough to serve beside what is measured. Knows headers and blocks only.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::encode::deserialize;
use bitcoin::p2p::message_blockdata::Inventory;
use groat_net::message::{MAX_HEADERS_RESULTS, Message};
use groat_net::wire::{Codec, Entropy};

use crate::chaingen::block_files;
use crate::peer::{Heard, Peer, version};
use crate::regtest::MAGIC;

/// Bytes before each block in a block file: magic and length.
const FRAME: usize = 8;

/// A chain in memory.
pub struct Provider {
    headers: Vec<Header>,
    blocks: BTreeMap<BlockHash, (usize, Arc<Vec<u8>>)>,
}

impl Provider {
    /// Reads the chain of a generated folder.
    pub fn read(folder: &Path) -> io::Result<Provider> {
        let mut provider = Provider { headers: Vec::new(), blocks: BTreeMap::new() };
        for file in block_files(folder) {
            let bytes = std::fs::read(file)?;
            let mut rest = &bytes[..];
            while let Some((frame, tail)) = rest.split_at_checked(FRAME) {
                let length = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]) as usize;
                let (block, tail) = tail.split_at_checked(length).ok_or(io::ErrorKind::UnexpectedEof)?;
                provider.push(block)?;
                rest = tail;
            }
        }
        Ok(provider)
    }

    fn push(&mut self, block: &[u8]) -> io::Result<()> {
        let header: Header = deserialize(block.get(..Header::SIZE).ok_or(io::ErrorKind::UnexpectedEof)?)
            .map_err(|_| io::ErrorKind::InvalidData)?;
        let height = self.headers.len();
        assert!(
            self.headers.last().is_none_or(|last| last.block_hash() == header.prev_blockhash),
            "the chain is in order"
        );
        self.headers.push(header);
        self.blocks.insert(header.block_hash(), (height, Arc::new(block.to_vec())));
        Ok(())
    }

    /// Takes one link on a port of its own and serves it to its end, in a thread of its own. Gives the address.
    pub fn serve(self) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        std::thread::spawn(move || {
            // Whoever dialled finds out by itself that the link broke.
            let _ = self.serve_one(&listener);
        });
        Ok(addr)
    }

    fn serve_one(&self, listener: &TcpListener) -> io::Result<()> {
        let mut peer = Peer::over(listener.accept()?.0, Codec::incoming(MAGIC, Entropy::draw(&mut rand::rng())))?;
        loop {
            let message = match peer.receive(Duration::from_secs(3600)) {
                Heard::Message(message) => message,
                Heard::Closed | Heard::Nothing => return Ok(()),
            };
            match message {
                Message::Version(_) => {
                    let Message::Version(mut own) = version() else { unreachable!("it is one") };
                    own.start_height = self.headers.len() as i32 - 1;
                    peer.send(&Message::Version(own))?;
                    peer.send(&Message::Verack)?;
                }
                Message::Ping(nonce) => peer.send(&Message::Pong(nonce))?,
                Message::GetHeaders(locate) => {
                    let known = locate.locator.iter().find_map(|hash| self.blocks.get(hash));
                    let next = known.map_or(1, |(height, _)| height + 1);
                    let end = self.headers.len().min(next + MAX_HEADERS_RESULTS);
                    peer.send(&Message::Headers(self.headers.get(next..end).unwrap_or_default().to_vec()))?;
                }
                Message::GetData(items) => {
                    for item in items {
                        if let Inventory::Block(hash) | Inventory::WitnessBlock(hash) = item
                            && let Some((_, bytes)) = self.blocks.get(&hash)
                        {
                            peer.send(&Message::Block(bytes.clone()))?;
                        }
                    }
                }
                _ => {}
            }
        }
    }
}
