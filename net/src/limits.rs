//! Every size that bounds what peers can make this node hold or send, in one value: the simulator shrinks it, tests
//! reach its ends. Durations are in `timers.rs`, sizes of messages in `message.rs`.

/// The bounds. [`Limits::default`] has Core's numbers where Core has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a peer's messages that wait for their turn, above which its socket is not read any more.
    pub inbox_bytes: usize,
    /// Bytes of all peers' messages that wait, above which the peer goes that has most of them.
    pub inbox_bytes_in_all: usize,
    /// Bytes queued to a peer and being read for it, above which its requests wait. Core: `-maxsendbuffer`.
    pub send_pause_bytes: usize,
    /// Blocks asked of one peer at a time. Core: `MAX_BLOCKS_IN_TRANSIT_PER_PEER`.
    pub blocks_in_transit: usize,
    /// Bytes of one peer's blocks that the ledger has not judged, above which its socket is not read any more.
    pub unjudged_block_bytes: usize,
    /// How far above the last block that we share with a peer blocks are fetched. Core: `BLOCK_DOWNLOAD_WINDOW`.
    pub block_window: u32,
    /// Blocks of one peer's requests being read from disk at a time.
    pub reads_in_flight: usize,
    /// Blocks announced at a time. Core: `MAX_BLOCKS_TO_ANNOUNCE`.
    pub blocks_to_announce: usize,
    /// Hashes in the answer to `getblocks`.
    pub getblocks_hashes: usize,
    /// Blocks that a node with `NODE_NETWORK_LIMITED` serves. Core: `NODE_NETWORK_LIMITED_MIN_BLOCKS`.
    pub limited_blocks: u32,
    /// Depth below the tip that a block nobody asked for may have, and its height above it. Core: `MIN_BLOCKS_TO_KEEP`.
    pub unasked_block_height: u32,
    /// Blocks whose giver is remembered until they are connected.
    pub block_sources: usize,
    /// Peers that fill one compact block at a time. Core: `MAX_CMPCTBLOCKS_INFLIGHT_PER_BLOCK`.
    pub compact_tries: usize,
    /// Peers asked for one block at a time with hedged requests (`--relay=groat`).
    pub block_requests: usize,
    /// Transactions' bytes that a compact block carries beside its coinbase (`--relay=groat`; BIP152 advises 10 kB).
    pub prefilled_bytes: usize,
    /// Peers that we ask to push compact blocks. Core: `MaybeSetPeerAsAnnouncingHeaderAndIDs`.
    pub compact_pushers: usize,
    /// Transactions that are not in the pool, kept for compact blocks. Core: `DEFAULT_BLOCK_RECONSTRUCTION_EXTRA_TXN`.
    pub extra_transactions: usize,
    /// Addresses that are remembered as misbehaving. Core: `CRollingBloomFilter m_discouraged{50000}`.
    pub discouraged: usize,
    /// Addresses of our own. Core bounds them by the machine's interfaces.
    pub own_addresses: usize,
    /// Addresses that a peer is known to know. Core: `m_addr_known`, a filter of 5000.
    pub known_addresses: usize,
    /// Answers to `getaddr` that are given again: one for each network and address of ours.
    pub address_answers: usize,
    /// Addresses that are being dialled on an operator's word.
    pub dials: usize,
    /// Subnets that are banned.
    pub bans: usize,
    /// Transactions that the pool took last, remembered for announcing.
    pub transaction_log: usize,
    /// Transactions announced by a peer and not here. Core: `MAX_PEER_TX_ANNOUNCEMENTS`.
    pub announced_transactions: usize,
    /// Announcements of all peers that dialled us, above which who has most of them loses some.
    pub announced_in_all: usize,
    /// Transactions asked of a peer, above which its turn comes later. Core: `MAX_PEER_TX_REQUEST_IN_FLIGHT`.
    pub requested_transactions: usize,
    /// Refused transactions that are remembered until the tip changes. Core: `m_recent_rejects{120000}`.
    pub recent_rejects: usize,
    /// Transactions of the last blocks that are remembered, by both ids. Core: `m_recent_confirmed_transactions{48000}`.
    pub recent_confirmed: usize,
    /// Weight of transactions without their parents that each peer may fill. Core:
    /// `DEFAULT_RESERVED_ORPHAN_WEIGHT_PER_PEER`.
    pub orphan_weight_per_peer: u64,
    /// Weight that all those may fill who dialled us; above it each has an equal part.
    pub orphan_weight_in_all: u64,
    /// Announcements of such transactions, and tenths of their inputs. Core: `DEFAULT_MAX_ORPHANAGE_LATENCY_SCORE`.
    pub orphan_score: u64,
    /// Full outbound peers that are kept though their chain is behind.
    /// Core: `MAX_OUTBOUND_PEERS_TO_PROTECT_FROM_DISCONNECT`.
    pub protected_outbound: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            inbox_bytes: 256 * 1024,
            inbox_bytes_in_all: 128 * 1024 * 1024,
            send_pause_bytes: 1_000_000,
            blocks_in_transit: 16,
            unjudged_block_bytes: 32 * 1024 * 1024,
            block_window: 1024,
            reads_in_flight: 4,
            blocks_to_announce: 8,
            getblocks_hashes: 500,
            limited_blocks: 288,
            unasked_block_height: 288,
            block_sources: 4096,
            compact_tries: 3,
            block_requests: 4,
            prefilled_bytes: 10_000,
            compact_pushers: 3,
            extra_transactions: 100,
            discouraged: 50_000,
            own_addresses: 64,
            known_addresses: 1000,
            address_answers: 64,
            dials: 64,
            bans: 100_000,
            transaction_log: 20_000,
            announced_transactions: 5000,
            announced_in_all: 500_000,
            requested_transactions: 100,
            recent_rejects: 120_000,
            recent_confirmed: 48_000,
            orphan_weight_per_peer: 404_000,
            orphan_weight_in_all: 125 * 404_000,
            orphan_score: 3000,
            protected_outbound: 4,
        }
    }
}

impl Limits {
    /// Bounds that a few messages reach: for tests of what happens there.
    pub fn small() -> Limits {
        Limits {
            inbox_bytes: 2000,
            send_pause_bytes: 10_000,
            blocks_in_transit: 3,
            unjudged_block_bytes: 1000,
            block_window: 8,
            reads_in_flight: 2,
            block_sources: 4,
            discouraged: 3,
            known_addresses: 10,
            address_answers: 2,
            orphan_weight_per_peer: 2000,
            orphan_weight_in_all: 6000,
            orphan_score: 30,
            recent_confirmed: 8,
            transaction_log: 16,
            announced_transactions: 20,
            announced_in_all: 60,
            requested_transactions: 4,
            recent_rejects: 8,
            ..Limits::default()
        }
    }
}
