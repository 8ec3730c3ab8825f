//! How amounts, dates and tables are read and written. Knows nothing of wallets.

use std::fmt::Write;

use bitcoin::{Amount, FeeRate};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use crate::error::{Result, failed, usage};

/// Satoshi in a bitcoin, as a power of ten.
const BTC_DIGITS: usize = 8;
/// Satoshi in a ksat, as a power of ten.
const KSAT_DIGITS: usize = 3;

/// Reads an amount: a whole number is satoshi; `btc`, `ksat` and `sat` may follow a number. A decimal fraction without a
/// unit is refused with what it could mean.
pub fn parse_amount(text: &str) -> Result<Amount> {
    let lower = text.trim().to_ascii_lowercase();
    let (number, digits) = [("btc", BTC_DIGITS), ("ksat", KSAT_DIGITS), ("sats", 0), ("sat", 0)]
        .into_iter()
        .find_map(|(suffix, digits)| Some((lower.strip_suffix(suffix)?.trim_end(), digits)))
        .unwrap_or((&lower, usize::MAX));
    if digits != usize::MAX {
        return scaled(number, digits).ok_or_else(|| unreadable(text));
    }
    if !number.contains('.') {
        return scaled(number, 0).ok_or_else(|| unreadable(text));
    }
    let readings: Vec<String> = [("btc", BTC_DIGITS), ("ksat", KSAT_DIGITS)]
        .into_iter()
        .filter_map(|(unit, digits)| Some(format!("{number}{unit} ({})", sat(scaled(number, digits)?.to_sat()))))
        .collect();
    Err(if readings.is_empty() {
        unreadable(text)
    } else {
        usage(format!("{text} has no unit: write {}, or a whole number of sat", readings.join(" or ")))
    })
}

fn unreadable(text: &str) -> crate::error::Error {
    usage(format!(
        "{text:?} is not an amount: write a whole number of sat, 0.001btc, 25ksat, or max where it is allowed"
    ))
}

/// A decimal number times a power of ten, if that is a whole number of satoshi that can exist.
fn scaled(number: &str, digits: usize) -> Option<Amount> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if !number.is_ascii() {
        return None;
    }
    let part =
        if part.len() > digits && part[digits..].bytes().all(|digit| digit == b'0') { &part[..digits] } else { part };
    let plain = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || part.len() > digits || !plain(whole) || !plain(part) {
        return None;
    }
    let all: u64 = format!("{whole}{part}{}", "0".repeat(digits - part.len())).parse().ok()?;
    Some(Amount::from_sat(all)).filter(|amount| *amount <= Amount::MAX_MONEY)
}

/// A fee rate in sat/vB, fractions allowed.
pub fn parse_feerate(text: &str) -> Result<FeeRate> {
    let wrong = || usage(format!("{text:?} is not a fee rate: write sat/vB, such as 2.5"));
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 {
        return Err(usage(format!("{text:?} is too fine a fee rate: three digits after the point are the most")));
    }
    // Thousandths of a sat/vB are sat/kvB, and 4 kwu are a kvB; rounded up, so that it is not below what was asked.
    let per_kvb: u64 = format!("{whole}{part:0<3}").parse().map_err(|_| wrong())?;
    let rate = FeeRate::from_sat_per_kwu(per_kvb.div_ceil(4));
    if rate == FeeRate::ZERO || per_kvb > 100_000_000 { Err(wrong()) } else { Ok(rate) }
}

/// A number with its thousands apart: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1,234 sat`.
pub fn sat(amount: u64) -> String {
    format!("{} sat", grouped(amount))
}

/// `0.00001234 BTC`.
pub fn btc(amount: u64) -> String {
    format!("{}.{:08} BTC", amount / 100_000_000, amount % 100_000_000)
}

/// A difference: `+1,234` or `-1,234`.
pub fn signed(difference: i64) -> String {
    format!("{}{}", if difference < 0 { '-' } else { '+' }, grouped(difference.unsigned_abs()))
}

/// sat/vB as a number with at most three digits after the point.
pub fn sat_vb(rate: FeeRate) -> f64 {
    (rate.to_sat_per_kwu() * 4) as f64 / 1000.0
}

/// sat/vB of a fee over a size, to two digits.
pub fn rate_of(fee: u64, vsize: u64) -> f64 {
    (fee as f64 * 100.0 / vsize as f64).round() / 100.0
}

/// An address in blocks of four, for reading aloud.
pub fn in_fours(address: &str) -> String {
    let letters: Vec<char> = address.chars().collect();
    letters.chunks(4).map(String::from_iter).collect::<Vec<_>>().join(" ")
}

/// A QR code of half blocks, as a terminal shows it. None: it is too much for one.
pub fn qr_code(text: &str) -> Option<String> {
    // The lowest correction holds the most, and a screen is not torn.
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    Some(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

/// Text of others without what a terminal would obey: control characters and changes of direction become `?`, but for
/// the ends of lines.
pub fn printable(text: &str) -> String {
    let obeyed = |letter: char| {
        (letter.is_control() && letter != '\n') || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|letter| if obeyed(letter) { '?' } else { letter }).collect()
}

fn cell(text: &str) -> String {
    printable(text).replace('\n', " ")
}

/// Rows as lines, columns aligned, the first line being titles. Columns of numbers stand to the right.
pub fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let rows = &rows.iter().map(|row| row.iter().map(|text| cell(text)).collect()).collect::<Vec<Vec<String>>>();
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([titles[column].len()]).max().unwrap_or(0)
    };
    let number = |column: usize| {
        let numeric = |text: &str| text.chars().all(|letter| letter.is_ascii_digit() || "+-,.".contains(letter));
        rows.iter().all(|row| numeric(&row[column]))
    };
    let columns: Vec<(usize, bool)> = (0..titles.len()).map(|column| (width(column), number(column))).collect();
    let mut text = String::new();
    let titles: Vec<String> = titles.iter().map(|title| (*title).to_owned()).collect();
    for row in [&titles].into_iter().chain(rows) {
        let mut line = String::new();
        for (cell, (width, right)) in row.iter().zip(&columns) {
            let _ = if *right { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

/// Rows for another program: tabs, no titles.
pub fn plain(rows: &[Vec<String>]) -> String {
    let line = |row: &Vec<String>| row.iter().map(|text| cell(text)).collect::<Vec<_>>().join("\t");
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Unix time as `2026-11-26 13:05` in UTC.
pub fn date_time(unix: u64) -> String {
    let (year, month, day) = civil((unix / 86_400) as i64);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", unix / 3600 % 24, unix / 60 % 60)
}

/// Unix time of the beginning of a day in UTC, written `2026-11-26`.
pub fn parse_date(text: &str) -> Result<u64> {
    let wrong = || failed(format!("{text:?} is not a date: write it as 2024-05-31"));
    let parts: Vec<i64> =
        text.split('-').map(str::parse).collect::<std::result::Result<_, _>>().map_err(|_| wrong())?;
    let [year, month, day] = parts[..] else { return Err(wrong()) };
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return Err(wrong());
    }
    let days = days(year, month, day);
    if civil(days) != (year, month, day) { Err(wrong()) } else { Ok(days as u64 * 86_400) }
}

/// Days from 1970-01-01. The year is counted from March, so that the leap day ends it.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// Year, month and day; the reverse of [`days`].
fn civil(since_1970: i64) -> (i64, i64, i64) {
    let day = since_1970 + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let of_era_year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_era_year + of_era_year / 4 - of_era_year / 100);
    let month = (5 * of_year + 2) / 153;
    let (year, month_of_year) = (era * 400 + of_era_year, if month < 10 { month + 3 } else { month - 9 });
    (year + i64::from(month_of_year <= 2), month_of_year, of_year - (153 * month + 2) / 5 + 1)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_sat_and_units_are_exact() {
        for (text, expected) in [
            ("25000", 25_000),
            ("0.00025btc", 25_000),
            ("25ksat", 25_000),
            ("25.5 ksat", 25_500),
            ("1sat", 1),
            ("7 sats", 7),
            ("21000000BTC", 2_100_000_000_000_000),
            (".5btc", 50_000_000),
            ("1.0ksat", 1000),
            ("1.500000000btc", 150_000_000),
        ] {
            assert_eq!(parse_amount(text).unwrap().to_sat(), expected, "{text}");
        }
    }

    #[test]
    fn a_bare_decimal_is_refused_with_what_it_could_mean() {
        let said = parse_amount("1.5").unwrap_err().to_string();
        assert!(said.contains("1.5btc (150,000,000 sat) or 1.5ksat (1,500 sat)"), "{said}");
        assert!(parse_amount("0.00000001").unwrap_err().to_string().contains("0.00000001btc (1 sat)"));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in [
            "",
            "btc",
            ".",
            "-5",
            "1e8",
            "0.000000001btc",
            "0.1234567\u{e9}8btc",
            "1.12\u{e9}ksat",
            "1e3",
            "0.5sat",
            "21000001btc",
            "1,000",
            "99999999999999999999",
        ] {
            assert!(parse_amount(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn fee_rates_below_one_are_exact() {
        for (text, expected) in [("1", 250), ("0.1", 25), ("2.5", 625), ("0.001", 1), ("10", 2500)] {
            assert_eq!(parse_feerate(text).unwrap().to_sat_per_kwu(), expected, "{text}");
        }
        for text in ["0", "", "-1", "1.2345", "x", "1000000"] {
            assert!(parse_feerate(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn dates_go_both_ways() {
        for (text, expected) in [("1970-01-01", 0), ("2009-01-03", 1_230_940_800), ("2024-02-29", 1_709_164_800)] {
            assert_eq!(parse_date(text).unwrap(), expected, "{text}");
            assert_eq!(date_time(expected), format!("{text} 00:00"));
        }
        for text in ["2023-02-29", "2023-13-01", "2023-1", "yesterday", "1969-12-31"] {
            assert!(parse_date(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn numbers_and_tables_are_readable() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(signed(-1234), "-1,234");
        assert_eq!(btc(100_000), "0.00100000 BTC");
        let rows = [vec!["a".to_owned(), "10".to_owned()], vec!["bcd".to_owned(), "7".to_owned()]];
        assert_eq!(table(&["name", "sat"], &rows), "name  sat\na      10\nbcd     7");
        assert_eq!(plain(&rows), "a\t10\nbcd\t7");
    }

    #[test]
    fn what_others_wrote_cannot_command_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\u{7}\u{9b}c\r\u{202e}d\ne"), "a?[2Jb??c??d\ne");
        let rows = [vec!["rent\n+5\t\u{1b}[A".to_owned()]];
        assert_eq!(table(&["label"], &rows), "label\nrent +5??[A");
        assert_eq!(plain(&rows), "rent +5??[A");
    }
}
