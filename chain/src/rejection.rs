//! Every reason to refuse a header, a block or a transaction, once. Its text is exactly Core's reject reason, so
//! that two nodes are compared by comparing strings. Which rule gives which reason: `docs/RULES.md`.

use crate::script::ScriptError;

/// Why something was refused. `Display` is Core's reject reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    // Headers.
    /// The hash is above the target, or the target is none that the network allows.
    #[error("high-hash")]
    HighHash,
    /// The target is not the one that the branch demands.
    #[error("bad-diffbits")]
    BadDiffBits,
    /// Not later than the median of the last eleven headers.
    #[error("time-too-old")]
    TimeTooOld,
    /// More than two hours ahead of the clock.
    #[error("time-too-new")]
    TimeTooNew,
    /// The first block of a retarget period is too far behind the last of the period before (BIP94).
    #[error("time-timewarp-attack")]
    TimeTimewarpAttack,
    /// A version that a buried deployment has retired.
    #[error("bad-version(0x{0:08x})")]
    BadVersion(i32),
    /// Another block than the checkpoint at its height. Only a network of one's own has checkpoints.
    #[error("checkpoint mismatch")]
    CheckpointMismatch,
    /// The header it builds on is unknown.
    #[error("prev-blk-not-found")]
    PrevBlkNotFound,
    /// The block it builds on is invalid.
    #[error("bad-prevblk")]
    BadPrevBlk,
    /// Known, and known to be invalid.
    #[error("duplicate-invalid")]
    DuplicateInvalid,

    // Blocks, without coins.
    /// The coinbase carries no valid answer to the signet challenge (BIP325).
    #[error("bad-signet-blksig")]
    BadSignetBlksig,
    /// The transactions do not hash to the header's merkle root.
    #[error("bad-txnmrklroot")]
    BadTxnMrklRoot,
    /// Repeated transactions leave the merkle root as it was (CVE-2012-2459).
    #[error("bad-txns-duplicate")]
    BadTxnsDuplicate,
    /// No transaction, or too many bytes without witness.
    #[error("bad-blk-length")]
    BadBlkLength,
    /// The first transaction is no coinbase.
    #[error("bad-cb-missing")]
    BadCbMissing,
    /// A second coinbase.
    #[error("bad-cb-multiple")]
    BadCbMultiple,
    /// The coinbase's input script has fewer than 2 or more than 100 bytes.
    #[error("bad-cb-length")]
    BadCbLength,
    /// More signature operations than a block may have.
    #[error("bad-blk-sigops")]
    BadBlkSigops,
    /// A transaction whose lock time (absolute or relative) has not come.
    #[error("bad-txns-nonfinal")]
    BadTxnsNonfinal,
    /// The coinbase does not begin with the height (BIP34).
    #[error("bad-cb-height")]
    BadCbHeight,
    /// The coinbase commits to witnesses without one reserved value of 32 bytes (BIP141).
    #[error("bad-witness-nonce-size")]
    BadWitnessNonceSize,
    /// The witnesses are not those that the coinbase commits to (BIP141).
    #[error("bad-witness-merkle-match")]
    BadWitnessMerkleMatch,
    /// Witnesses that nothing commits to (BIP141).
    #[error("unexpected-witness")]
    UnexpectedWitness,
    /// More weight than a block may have (BIP141).
    #[error("bad-blk-weight")]
    BadBlkWeight,

    // Blocks, with coins.
    /// An output would overwrite an unspent one (BIP30).
    #[error("bad-txns-BIP30")]
    BadTxnsBip30,
    /// The fees of the block add up to more than all money.
    #[error("bad-txns-accumulated-fee-outofrange")]
    BadTxnsAccumulatedFeeOutofrange,
    /// The coinbase takes more than subsidy and fees.
    #[error("bad-cb-amount")]
    BadCbAmount,
    /// A script of a block failed.
    #[error("block-script-verify-flag-failed ({0})")]
    BlockScript(ScriptError),

    // Transactions, without coins.
    /// No inputs.
    #[error("bad-txns-vin-empty")]
    BadTxnsVinEmpty,
    /// No outputs.
    #[error("bad-txns-vout-empty")]
    BadTxnsVoutEmpty,
    /// Alone larger than a block may be.
    #[error("bad-txns-oversize")]
    BadTxnsOversize,
    /// An output below zero.
    #[error("bad-txns-vout-negative")]
    BadTxnsVoutNegative,
    /// An output above all money.
    #[error("bad-txns-vout-toolarge")]
    BadTxnsVoutToolarge,
    /// The outputs add up to more than all money.
    #[error("bad-txns-txouttotal-toolarge")]
    BadTxnsTxouttotalToolarge,
    /// The same output is spent twice in one transaction (CVE-2018-17144).
    #[error("bad-txns-inputs-duplicate")]
    BadTxnsInputsDuplicate,
    /// An input names no output, and this is no coinbase.
    #[error("bad-txns-prevout-null")]
    BadTxnsPrevoutNull,

    // Transactions, with coins.
    /// A transaction of a block spends an output that does not exist or is spent.
    #[error("bad-txns-inputs-missingorspent")]
    BadTxnsInputsMissingorspent,
    /// A coinbase is spent before it is mature.
    #[error("bad-txns-premature-spend-of-coinbase")]
    BadTxnsPrematureSpendOfCoinbase,
    /// The inputs, or one of them, are worth more than all money.
    #[error("bad-txns-inputvalues-outofrange")]
    BadTxnsInputvaluesOutofrange,
    /// The outputs are worth more than the inputs.
    #[error("bad-txns-in-belowout")]
    BadTxnsInBelowout,
    /// The fee is more than all money.
    #[error("bad-txns-fee-outofrange")]
    BadTxnsFeeOutofrange,

    // Transactions for the mempool. The first ones need no coins.
    /// A coinbase is valid in a block alone.
    #[error("coinbase")]
    Coinbase,
    /// A version that has no meaning yet.
    #[error("version")]
    Version,
    /// More weight than is relayed.
    #[error("tx-size")]
    TxSize,
    /// So few bytes without witness that it could pass for an inner node of a merkle tree (CVE-2017-12842).
    #[error("tx-size-small")]
    TxSizeSmall,
    /// An input script longer than any usual one.
    #[error("scriptsig-size")]
    ScriptsigSize,
    /// An input script that does more than push.
    #[error("scriptsig-not-pushonly")]
    ScriptsigNotPushonly,
    /// An output script of no known form.
    #[error("scriptpubkey")]
    ScriptPubkey,
    /// More bytes of data in outputs than the operator relays.
    #[error("datacarrier")]
    Datacarrier,
    /// Keys shown bare, which the operator does not relay.
    #[error("bare-multisig")]
    BareMultisig,
    /// An output that costs more to spend than it is worth.
    #[error("dust")]
    Dust,
    /// Its lock time has not come.
    #[error("non-final")]
    NonFinal,
    /// It is in the pool.
    #[error("txn-already-in-mempool")]
    TxnAlreadyInMempool,
    /// It is in the pool with another witness.
    #[error("txn-same-nonwitness-data-in-mempool")]
    TxnSameNonwitnessDataInMempool,
    /// A transaction of the pool spends the same output, and this one of a list is only tested.
    #[error("bip125-replacement-disallowed")]
    Bip125ReplacementDisallowed,
    /// It is mined already.
    #[error("txn-already-known")]
    TxnAlreadyKnown,

    // Transactions for the mempool, with coins.
    /// It spends what neither chain nor pool has: for a block that is [`Rejection::BadTxnsInputsMissingorspent`].
    #[error("bad-txns-inputs-missingorspent")]
    MissingInputs,
    /// A relative lock time has not come (BIP68).
    #[error("non-BIP68-final")]
    NonBip68Final,
    /// It spends outputs of no known form, or with too many signature operations.
    #[error("bad-txns-nonstandard-inputs")]
    BadTxnsNonstandardInputs,
    /// A witness larger than any usual one, or where none belongs.
    #[error("bad-witness-nonstandard")]
    BadWitnessNonstandard,
    /// Its signature operations cost more than is relayed.
    #[error("bad-txns-too-many-sigops")]
    BadTxnsTooManySigops,
    /// It pays less than the pool takes while it is full.
    #[error("mempool min fee not met")]
    MempoolMinFeeNotMet,
    /// It pays less than the operator relays.
    #[error("min relay fee not met")]
    MinRelayFeeNotMet,
    /// It breaks the rules of transactions of version 3 (BIP431).
    #[error("TRUC-violation")]
    TrucViolation,
    /// It would replace transactions of too many clusters.
    #[error("too many potential replacements")]
    TooManyPotentialReplacements,
    /// The same where the other child of a parent of version 3 is among them.
    #[error("too many potential replacements (including sibling eviction)")]
    TooManyPotentialReplacementsSibling,
    /// It pays less than what it replaces and its relay.
    #[error("insufficient fee")]
    InsufficientFee,
    /// The same where the other child of a parent of version 3 is to be replaced.
    #[error("insufficient fee (including sibling eviction)")]
    InsufficientFeeSibling,
    /// With it the pool would not be worth more to miners.
    #[error("replacement-failed")]
    ReplacementFailed,
    /// It spends of what it would replace.
    #[error("bad-txns-spends-conflicting-tx")]
    BadTxnsSpendsConflictingTx,
    /// It pays more than who hands it in wants to.
    #[error("max feerate exceeded")]
    MaxFeerateExceeded,
    /// Too many transactions of the pool, or too large ones, would hang together.
    #[error("too-large-cluster")]
    TooLargeCluster,
    /// It spends of a parent with dust, but not the dust.
    #[error("missing-ephemeral-spends")]
    MissingEphemeralSpends,
    /// A script of it failed.
    #[error("mempool-script-verify-flag-failed ({0})")]
    MempoolScript(ScriptError),
    /// A script of it failed, and it has no witness where it needs one.
    #[error("mempool-script-verify-flag-failed ({0})")]
    MempoolScriptStripped(ScriptError),
    /// The pool is full of transactions that pay more.
    #[error("mempool full")]
    MempoolFull,
}

/// What a rejection says about what was refused, and so what may be remembered of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// It breaks a rule of the network. Only this marks a block's hash, with its descendants, as invalid.
    Consensus,
    /// The bytes are not those that the proof of work commits to: the same hash may come with a valid body.
    Mutated,
    /// What it builds on or spends is not known here.
    Missing,
    /// It may become valid as time passes.
    Future,
    /// This node does not want it; others may.
    Policy,
    /// Refused alone, it may be taken in a package.
    Reconsiderable,
    /// Its witness was taken away: the same txid may come whole.
    WitnessStripped,
    /// It is known already.
    Duplicate,
}

impl Rejection {
    /// What the rejection says about what was refused.
    pub fn blame(&self) -> Blame {
        use Rejection::*;
        match self {
            HighHash | BadDiffBits | TimeTooOld | TimeTimewarpAttack | BadVersion(_) | CheckpointMismatch
            | BadPrevBlk => Blame::Consensus,
            TimeTooNew => Blame::Future,
            PrevBlkNotFound => Blame::Missing,
            DuplicateInvalid => Blame::Duplicate,
            Version
            | TxSize
            | TxSizeSmall
            | ScriptsigSize
            | ScriptsigNotPushonly
            | ScriptPubkey
            | Datacarrier
            | BareMultisig
            | Dust
            | Bip125ReplacementDisallowed
            | TooManyPotentialReplacements
            | TooManyPotentialReplacementsSibling
            | MaxFeerateExceeded
            | BadTxnsNonstandardInputs
            | BadWitnessNonstandard
            | BadTxnsTooManySigops
            | TrucViolation
            | TooLargeCluster
            | MissingEphemeralSpends
            | MempoolScript(_) => Blame::Policy,
            MempoolMinFeeNotMet
            | MinRelayFeeNotMet
            | MempoolFull
            | InsufficientFee
            | InsufficientFeeSibling
            | ReplacementFailed => Blame::Reconsiderable,
            MempoolScriptStripped(_) => Blame::WitnessStripped,
            NonFinal | NonBip68Final => Blame::Future,
            TxnAlreadyInMempool | TxnSameNonwitnessDataInMempool | TxnAlreadyKnown => Blame::Duplicate,
            MissingInputs => Blame::Missing,
            BadTxnMrklRoot | BadTxnsDuplicate | BadWitnessNonceSize | BadWitnessMerkleMatch | UnexpectedWitness => {
                Blame::Mutated
            }
            BadSignetBlksig
            | BadBlkLength
            | BadCbMissing
            | BadCbMultiple
            | BadCbLength
            | BadBlkSigops
            | BadTxnsNonfinal
            | BadCbHeight
            | BadBlkWeight
            | BadTxnsBip30
            | BadTxnsAccumulatedFeeOutofrange
            | BadCbAmount
            | BlockScript(_)
            | BadTxnsVinEmpty
            | BadTxnsVoutEmpty
            | BadTxnsOversize
            | BadTxnsVoutNegative
            | BadTxnsVoutToolarge
            | BadTxnsTxouttotalToolarge
            | BadTxnsInputsDuplicate
            | BadTxnsPrevoutNull
            | BadTxnsInputsMissingorspent
            | BadTxnsPrematureSpendOfCoinbase
            | BadTxnsInputvaluesOutofrange
            | BadTxnsInBelowout
            | BadTxnsFeeOutofrange
            | BadTxnsSpendsConflictingTx
            | Coinbase => Blame::Consensus,
        }
    }
}
