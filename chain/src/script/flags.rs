//! The script verification flags under Core's names. Which block height sets which flag is a rule, not known here.

/// A set of script verification flags. Every flag is a soft fork: what is valid under `A | B` is valid under `A`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal,)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Flags = Flags(1 << $bit);)*

            /// Every flag there is, with its name in Core without `SCRIPT_VERIFY_`, by ascending bit.
            pub const NAMED: &[(&'static str, Flags)] = &[$((stringify!($name), Flags::$name),)*];
        }
    };
}

flags! {
    /// Evaluate the script that a pay-to-script-hash output commits to (BIP16).
    P2SH = 0,
    /// Signatures are strict DER of a defined hash type, keys compressed or uncompressed (policy).
    STRICTENC = 1,
    /// Signatures are strict DER (BIP66).
    DERSIG = 2,
    /// The S of a signature lies in the lower half of the group order (policy).
    LOW_S = 3,
    /// The extra element that CHECKMULTISIG takes is empty (BIP147).
    NULLDUMMY = 4,
    /// The unlocking script only pushes (BIP62 rule 2).
    SIGPUSHONLY = 5,
    /// Pushes and numbers take the shortest form (policy).
    MINIMALDATA = 6,
    /// NOP1 and NOP4 to NOP10 fail when executed (policy).
    DISCOURAGE_UPGRADABLE_NOPS = 7,
    /// Exactly one element is left in the end; needs P2SH and WITNESS (policy).
    CLEANSTACK = 8,
    /// CHECKLOCKTIMEVERIFY has its meaning (BIP65).
    CHECKLOCKTIMEVERIFY = 9,
    /// CHECKSEQUENCEVERIFY has its meaning (BIP112).
    CHECKSEQUENCEVERIFY = 10,
    /// Witness programs are evaluated (BIP141); needs P2SH.
    WITNESS = 11,
    /// Witness programs without a meaning fail (policy).
    DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM = 12,
    /// IF and NOTIF of witness v0 take exactly empty or 1 (policy).
    MINIMALIF = 13,
    /// A signature that fails is empty (policy).
    NULLFAIL = 14,
    /// Keys of witness v0 are compressed (policy).
    WITNESS_PUBKEYTYPE = 15,
    /// CODESEPARATOR and a signature found in its own script fail before segwit (policy).
    CONST_SCRIPTCODE = 16,
    /// Taproot outputs are evaluated (BIP341, BIP342).
    TAPROOT = 17,
    /// Unknown taproot leaf versions fail (policy).
    DISCOURAGE_UPGRADABLE_TAPROOT_VERSION = 18,
    /// Opcodes that always succeed in tapscript fail (policy).
    DISCOURAGE_OP_SUCCESS = 19,
    /// Unknown public key types of tapscript fail (policy).
    DISCOURAGE_UPGRADABLE_PUBKEYTYPE = 20,
}

impl Flags {
    /// No flag: the rules of the original release.
    pub const NONE: Flags = Flags(0);

    /// Every flag.
    pub const ALL: Flags = Flags((1 << Flags::NAMED.len()) - 1);

    /// The consensus flags, and so what a relayed transaction must at least hold to (Core's
    /// `MANDATORY_SCRIPT_VERIFY_FLAGS`).
    pub const MANDATORY: Flags = Flags(
        Flags::P2SH.0
            | Flags::DERSIG.0
            | Flags::NULLDUMMY.0
            | Flags::CHECKLOCKTIMEVERIFY.0
            | Flags::CHECKSEQUENCEVERIFY.0
            | Flags::WITNESS.0
            | Flags::TAPROOT.0,
    );

    /// What standard transactions comply with (Core's `STANDARD_SCRIPT_VERIFY_FLAGS`): all but SIGPUSHONLY.
    pub const STANDARD: Flags = Flags(Flags::ALL.0 & !Flags::SIGPUSHONLY.0);

    /// Whether every flag of `other` is set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any flag of `other` is set.
    pub const fn intersects(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// The set without the flags of `other`.
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    /// The flags as bits, numbered as in Core's `script_verify_flag_name`.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The set with these bits; bits without a flag are dropped.
    pub const fn from_bits_truncate(bits: u32) -> Flags {
        Flags(bits & Flags::ALL.0)
    }

    /// Adds what CLEANSTACK needs (WITNESS) and what WITNESS needs (P2SH).
    pub fn with_needed(self) -> Flags {
        let witness = if self.contains(Flags::CLEANSTACK) { self | Flags::WITNESS } else { self };
        if witness.contains(Flags::WITNESS) { witness | Flags::P2SH } else { witness }
    }

    /// Drops WITNESS where P2SH is missing, then CLEANSTACK where WITNESS is missing.
    pub const fn without_unfounded(self) -> Flags {
        let witness = if self.contains(Flags::P2SH) { self } else { self.without(Flags::WITNESS) };
        if witness.contains(Flags::WITNESS) { witness } else { witness.without(Flags::CLEANSTACK) }
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

/// A word that names no flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a script verification flag")]
pub struct UnknownFlag(pub String);

/// Reads names joined by commas; nothing or `NONE` is the empty set.
impl std::str::FromStr for Flags {
    type Err = UnknownFlag;

    fn from_str(text: &str) -> Result<Flags, UnknownFlag> {
        if text.is_empty() || text == "NONE" {
            return Ok(Flags::NONE);
        }
        text.split(',').try_fold(Flags::NONE, |set, word| {
            let found = Flags::NAMED.iter().find(|(name, _)| *name == word);
            found.map(|(_, flag)| set | *flag).ok_or_else(|| UnknownFlag(word.to_owned()))
        })
    }
}

/// The names joined by commas, `NONE` for the empty set.
impl std::fmt::Display for Flags {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> =
            Flags::NAMED.iter().filter(|(_, flag)| self.contains(*flag)).map(|(name, _)| *name).collect();
        out.write_str(if names.is_empty() { "NONE".into() } else { names.join(",") }.as_str())
    }
}

impl std::fmt::Debug for Flags {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_the_same_set() {
        for set in [Flags::NONE, Flags::MANDATORY, Flags::STANDARD, Flags::ALL, Flags::TAPROOT] {
            assert_eq!(set.to_string().parse(), Ok(set), "{set}");
        }
        assert_eq!("P2SH,BOGUS".parse::<Flags>(), Err(UnknownFlag("BOGUS".into())));
    }

    #[test]
    fn dependent_flags_come_and_go_with_what_they_need() {
        assert_eq!(Flags::CLEANSTACK.with_needed(), Flags::CLEANSTACK | Flags::WITNESS | Flags::P2SH);
        assert!(!Flags::ALL.without(Flags::P2SH).without_unfounded().intersects(Flags::WITNESS | Flags::CLEANSTACK));
        assert_eq!((Flags::CLEANSTACK | Flags::WITNESS).without_unfounded(), Flags::NONE);
        assert_eq!(Flags::STANDARD.without_unfounded(), Flags::STANDARD);
    }
}
