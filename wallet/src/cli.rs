//! The command line: every command, option and their help. Knows how nothing is done.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::keys::Kind;

/// Groat's wallet, and the command that controls a node. It works with groatd and with bitcoind.
#[derive(Debug, Parser)]
#[command(
    name = "groat",
    version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("GROAT_COMMIT"), ")"),
    max_term_width = 100,
    after_help = "Example:\n  groat create savings\n  groat receive\n  groat send ADDRESS 0.001btc --within 6"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What goes with every command.
    #[command(flatten)]
    pub options: Options,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Options {
    /// main, test, testnet4, signet, regtest, or the file of a network of one's own
    #[arg(long, global = true, value_name = "NAME|FILE", env = "GROAT_CHAIN", default_value = "testnet4")]
    pub chain: String,
    /// Folder of the wallets and of the node's cookie [default: ~/.groat]
    #[arg(long, global = true, value_name = "DIR", env = "GROAT_DATADIR")]
    pub datadir: Option<PathBuf>,
    /// Where the node answers [default: loopback, the chain's port]
    #[arg(long, global = true, value_name = "URL", env = "GROAT_RPC")]
    pub rpc: Option<String>,
    /// The node's cookie, or a file with user:password [default: in the data folder, then in ~/.bitcoin]
    #[arg(long, global = true, value_name = "FILE", env = "GROAT_RPC_COOKIE")]
    pub rpc_cookie: Option<PathBuf>,
    /// Which wallet; needless where there is one
    #[arg(long, global = true, value_name = "NAME", env = "GROAT_WALLET")]
    pub wallet: Option<String>,
    /// Print one JSON object; amounts in it are in sat
    #[arg(long, global = true)]
    pub json: bool,
    /// Answer every question with yes
    #[arg(long, global = true)]
    pub yes: bool,
    /// Ask nothing; fail where an answer is needed
    #[arg(long, global = true)]
    pub no_input: bool,
    /// Take the wallet password from the first line of this file
    #[arg(long, global = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Take the BIP39 passphrase from the first line of this file
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Colors
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub color: Color,
}

/// When to print colors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How words become keys.
#[derive(Debug, Clone, Args)]
pub struct KeyOptions {
    /// What addresses look like
    #[arg(long = "type", value_enum, default_value = "taproot")]
    pub kind: Kind,
    /// Add a BIP39 passphrase: whoever has the words alone has other keys
    #[arg(long)]
    pub passphrase: bool,
}

/// What a payment costs.
#[derive(Debug, Clone, Args)]
pub struct FeeOptions {
    /// Fee rate in sat/vB, such as 2.5
    #[arg(long, value_name = "SAT/VB", conflicts_with = "within")]
    pub feerate: Option<String>,
    /// Aim at this many blocks until it is confirmed [default: 6]
    #[arg(long, value_name = "BLOCKS")]
    pub within: Option<u16>,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new wallet
    Create {
        /// Its name
        name: String,
        /// 12 or 24 words
        #[arg(long, default_value = "12", value_parser = ["12", "24"])]
        words: String,
        #[command(flatten)]
        keys: KeyOptions,
    },
    /// Make a wallet anew from its words
    Restore {
        /// Its name
        name: String,
        /// When it was first used: 2024-05-31, or the height of a block [default: read all blocks]
        #[arg(long, value_name = "DATE|HEIGHT")]
        birthday: Option<String>,
        /// Take the words from this file; - is standard input [default: ask for them]
        #[arg(long, value_name = "FILE")]
        words_file: Option<PathBuf>,
        #[command(flatten)]
        keys: KeyOptions,
    },
    /// Make a wallet that watches, from a descriptor or an extended public key
    Import {
        /// Its name
        name: String,
        /// Public descriptor (multisig too), with <0;1> for change; or an extended public key
        descriptor: String,
        /// Descriptor for change, where the first one does not say it
        #[arg(long, value_name = "DESCRIPTOR")]
        change: Option<String>,
        /// When it was first used: 2024-05-31, or the height of a block [default: read all blocks]
        #[arg(long, value_name = "DATE|HEIGHT")]
        birthday: Option<String>,
        /// What the addresses of an extended public key look like
        #[arg(long = "type", value_enum, default_value = "taproot")]
        kind: Kind,
    },
    /// Show all wallets
    List,
    /// Show what a wallet is
    Info,
    /// Change the wallet password
    Password {
        /// Take the new password from the first line of this file
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
    },
    /// Show an address to be paid at
    Receive {
        /// A new one, though the last is not used yet
        #[arg(long)]
        new: bool,
        /// Ask for this amount in the URI
        #[arg(long, value_name = "AMOUNT")]
        amount: Option<String>,
        /// Say what it is for; the address is then used for nothing else
        #[arg(long, value_name = "TEXT")]
        label: Option<String>,
        /// Show a QR code
        #[arg(long)]
        qr: bool,
    },
    /// Show the addresses given away so far
    Addresses {
        /// Those that were paid, alone
        #[arg(long)]
        used: bool,
    },
    /// Show how much there is
    Balance,
    /// Show payments, the last first
    History {
        /// Show at most this many
        #[arg(long, value_name = "N", default_value = "25")]
        limit: usize,
    },
    /// Show the single coins
    Coins {
        /// Keep a coin from being spent; may be repeated
        #[arg(long, value_name = "OUTPOINT")]
        lock: Vec<String>,
        /// Let a coin be spent again; may be repeated
        #[arg(long, value_name = "OUTPOINT")]
        unlock: Vec<String>,
    },
    /// Pay: an address or a bitcoin: URI, then an amount (25000, 0.001btc, 25ksat) or max; more such pairs may follow
    Send {
        /// Whom to pay, and how much
        #[arg(required = true, value_name = "ADDRESS|URI AMOUNT|max")]
        payments: Vec<String>,
        #[command(flatten)]
        fee: FeeOptions,
        /// Spend these coins and no others; may be repeated
        #[arg(long, value_name = "OUTPOINT")]
        from: Vec<String>,
        /// Show what would be sent, and send nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Raise the fee of a payment that waits, sent or received
    Bump {
        /// Its id
        txid: String,
        #[command(flatten)]
        fee: FeeOptions,
    },
    /// Take back a payment that waits, by one to yourself that pays more
    Cancel {
        /// Its id
        txid: String,
        #[command(flatten)]
        fee: FeeOptions,
    },
    /// Give a payment, an address or a coin a label; without one, show all labels
    Label {
        /// Transaction id, address, or outpoint
        reference: Option<String>,
        /// What it is; empty takes the label away
        text: Option<String>,
        /// Read labels from a file of BIP329; - is standard input
        #[arg(long, value_name = "FILE", conflicts_with_all = ["reference", "export"])]
        import: Option<PathBuf>,
        /// Print all labels as BIP329 says
        #[arg(long, conflicts_with = "reference")]
        export: bool,
    },
    /// Payments that several or offline wallets sign (BIP174)
    #[command(subcommand)]
    Psbt(PsbtCommand),
    /// Show what a wallet can be made anew from
    Backup {
        /// What to show
        #[arg(value_enum)]
        what: Backup,
        /// With `file`: the folder to make
        folder: Option<PathBuf>,
    },
    /// Delete a wallet that has no money
    Delete {
        /// Its name
        name: String,
        /// Though it may have money
        #[arg(long)]
        force: bool,
    },
    /// Prove by a signature that an address is yours (BIP322)
    SignMessage {
        /// One of the wallet's addresses
        address: String,
        /// What to sign
        message: String,
    },
    /// Check such a proof (BIP322)
    VerifyMessage {
        /// The address
        address: String,
        /// What was signed
        message: String,
        /// The signature
        signature: String,
    },
    /// Read the node's blocks and mempool
    Sync {
        /// Read again from here: 2024-05-31, or the height of a block
        #[arg(long, value_name = "DATE|HEIGHT")]
        from: Option<String>,
    },
    /// A network of one's own on this machine
    #[command(subcommand)]
    Net(NetCommand),
    /// Show what the node is doing, what limits it, and what to do about it
    Status {
        /// Show it again every two seconds, until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// Show the node's peers
    Peers,
    /// Call a method of the node: arguments in order, or key=value
    Rpc {
        /// The method; `help` lists all
        method: String,
        /// Its arguments; what is not JSON is text, - is standard input
        #[arg(allow_negative_numbers = true)]
        arguments: Vec<String>,
    },
    /// Stop the node
    Stop,
    /// Print the completions of a shell
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page, in roff
    Man {
        /// Write one page for each command into this folder instead
        folder: Option<PathBuf>,
    },
}

/// What `backup` shows.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Backup {
    /// The words: whoever has them has the money.
    Words,
    /// The descriptors: whoever has them sees the payments.
    Descriptors,
    /// A copy of its files, the words encrypted as they are.
    File,
}

/// Commands about partially signed transactions. Each is text or a file; `-` is standard input.
#[derive(Debug, Subcommand)]
pub enum PsbtCommand {
    /// Make one, unsigned, as `send` would; its coins are locked
    Create {
        /// Whom to pay, and how much
        #[arg(required = true, value_name = "ADDRESS|URI AMOUNT|max")]
        payments: Vec<String>,
        #[command(flatten)]
        fee: FeeOptions,
        /// Spend these coins and no others; may be repeated
        #[arg(long, value_name = "OUTPOINT")]
        from: Vec<String>,
    },
    /// Show what one does
    Show {
        /// The PSBT
        psbt: String,
        /// Show it as a QR code too, for a machine that is not linked with this one
        #[arg(long)]
        qr: bool,
    },
    /// Add this wallet's signatures; needs no node
    Sign {
        /// The PSBT
        psbt: String,
    },
    /// Put the signatures of several copies together
    Combine {
        /// The PSBTs
        #[arg(required = true, num_args = 2..)]
        psbts: Vec<String>,
    },
    /// Make the finished transaction of one that has all signatures
    Finalize {
        /// The PSBT
        psbt: String,
    },
    /// Send one that has all signatures
    Broadcast {
        /// The PSBT
        psbt: String,
    },
}

/// Commands about networks of one's own.
#[derive(Debug, Subcommand)]
pub enum NetCommand {
    /// Make a network: one file with all its parameters, for all who join. Asks for what is not given
    New(Box<NewNetwork>),
    /// Start nodes of it on this machine, with a miner and a faucet
    Up(Up),
    /// Stop the nodes
    Down(Which),
    /// Show the nodes
    Status(Which),
    /// Pay from the faucet
    Pay {
        /// Whom
        address: String,
        /// How much: 25000, 0.001btc, 25ksat
        amount: String,
        #[command(flatten)]
        fee: FeeOptions,
        #[command(flatten)]
        which: Which,
    },
}

/// Parameters of a new network. What is not given is asked for on a terminal.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  groat net new sandbox --spacing 30 --halving 1000 --maturity 10 --no-input")]
pub struct NewNetwork {
    /// Its name: a-z, digits, hyphens
    pub name: String,
    /// Seconds a block should take [default: 60]
    #[arg(long, value_name = "SECONDS")]
    pub spacing: Option<u32>,
    /// Blocks from one adjustment of the difficulty to the next; 0: it stays [default: 144]
    #[arg(long, value_name = "BLOCKS")]
    pub retarget: Option<u32>,
    /// Blocks after which the subsidy is halved [default: 210000]
    #[arg(long, value_name = "BLOCKS")]
    pub halving: Option<u32>,
    /// What the first blocks give [default: 50btc]
    #[arg(long, value_name = "AMOUNT")]
    pub subsidy: Option<String>,
    /// Blocks until what was mined may be spent [default: 100]
    #[arg(long, value_name = "BLOCKS")]
    pub maturity: Option<u32>,
    /// The easiest difficulty, which is that of the first blocks, as block explorers show it
    #[arg(long, value_name = "HEX", default_value = "1f0fffff")]
    pub bits: String,
    /// How addresses and keys are written
    #[arg(long, default_value = "regtest", value_parser = ["main", "test", "regtest"])]
    pub addresses: String,
    /// First four bytes of every message [default: random]
    #[arg(long, value_name = "HEX")]
    pub magic: Option<String>,
    /// Port for peers [default: random]
    #[arg(long)]
    pub port: Option<u16>,
    /// Port for JSON-RPC [default: one below that for peers]
    #[arg(long)]
    pub rpc_port: Option<u16>,
    /// Name that resolves to peers; may be repeated
    #[arg(long, value_name = "HOST")]
    pub seed: Vec<String>,
    /// A block that must stand at its height; may be repeated
    #[arg(long, value_name = "HEIGHT:HASH")]
    pub checkpoint: Vec<String>,
    /// What stands in the first block [default: the name]
    #[arg(long)]
    pub text: Option<String>,
    /// When the first block was made, in seconds since 1970 [default: so long ago that the first coins can be mature now]
    #[arg(long, value_name = "SECONDS")]
    pub time: Option<u32>,
    /// The file to write [default: NAME.toml]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// What `net up` starts.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  groat net up sandbox.toml --nodes 3")]
pub struct Up {
    /// The network's file, or regtest
    #[arg(value_name = "FILE|regtest")]
    pub network: String,
    /// How many nodes
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub nodes: u16,
    /// Folder of the nodes [default: net/NAME in the data folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Let peers of other machines link with node 0
    #[arg(long)]
    pub open: bool,
    /// Leave the nodes running; `groat net down` stops them
    #[arg(long)]
    pub detach: bool,
}

/// Which network is meant.
#[derive(Debug, Args)]
pub struct Which {
    /// Its name or file; needless where there is one
    #[arg(long = "net", value_name = "NAME|FILE")]
    pub network: Option<String>,
    /// Folder of its nodes [default: net/NAME in the data folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
