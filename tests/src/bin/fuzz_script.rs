//! Compares script verdicts with Bitcoin Core's in many cases, or repeats one.

use clap::Parser;
use groat_tests::fuzz_script::{Case, judge, run};

/// Random and spoiled spends: Groat and Bitcoin Core must agree on each.
#[derive(Parser)]
struct Options {
    /// How many cases.
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// The same seed makes the same cases.
    #[arg(long, default_value_t = 1, overrides_with = "seed")]
    seed: u64,
    /// Judges this one case instead, as a disagreement printed it.
    #[arg(long)]
    case: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if let Some(case) = options.case {
        let case = Case::from_hex(&case)?;
        println!("{case:#?}");
        let verdict = judge(&case).map_err(|disagreement| anyhow::anyhow!("{disagreement}"))?;
        println!("Both agree: {verdict:?} under {}", case.flags);
        return Ok(());
    }
    println!("seed {}, {} cases", options.seed, options.count);
    let verdicts = run(options.seed, options.count).map_err(|disagreement| anyhow::anyhow!("{disagreement}"))?;
    for (name, count) in verdicts {
        println!("{count:9} {name}");
    }
    println!("Groat and Core agree in all {} cases.", options.count);
    Ok(())
}
