//! What a flood of addresses can reach, and who keeps a place.

use super::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const NOW: u64 = 1_700_000_000;

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

fn v4(a: u8, b: u8, c: u8, d: u8) -> AddrEntry {
    AddrEntry { time: NOW as u32, services: 9, addr: NetAddr { host: Host::V4([a, b, c, d]), port: 8333 } }
}

/// Every index agrees with every other.
fn check(book: &Book) {
    let mut places = BTreeMap::new();
    for (bucket, held) in &book.new {
        assert!(*bucket < NEW_BUCKETS && !held.is_empty());
        for (place, id) in held {
            assert!(*place < BUCKET_SIZE);
            *places.entry(*id).or_insert(0u32) += 1;
        }
    }
    for (bucket, held) in &book.tried {
        for (place, id) in held {
            assert_eq!(book.tried_place(&book.entries[id].addr), (*bucket, *place));
            assert!(book.entries[id].tried);
        }
    }
    let tried: usize = book.tried.values().map(BTreeMap::len).sum();
    assert_eq!(tried, book.tried_len());
    for (id, entry) in &book.entries {
        assert_eq!(entry.places, places.get(id).copied().unwrap_or(0), "{}", entry.addr);
        assert!(entry.tried != (entry.places > 0), "{} is in one table", entry.addr);
        assert!(entry.places <= NEW_BUCKETS_PER_ADDRESS);
        assert_eq!(book.by_addr[&entry.addr], *id);
    }
    assert_eq!(book.by_addr.len(), book.entries.len());
}

#[test]
fn one_source_group_reaches_sixty_four_buckets() {
    let (mut rng, mut book) = (rng(), Book::with_key((1, 2)));
    for n in 0..60_000u32 {
        let [_, a, b, c] = n.to_be_bytes();
        let told = v4(11 + (n % 200) as u8, b, c, a + 1);
        book.add(&told, Host::V4([99, 1, (n % 250) as u8, 1]), 0, NOW, &mut rng);
    }
    assert!(book.new.len() <= 64, "{} buckets", book.new.len());
    assert!(book.len() <= 64 * 64);
    check(&book);
}

#[test]
fn addresses_of_one_group_reach_eight_tried_buckets() {
    let (mut rng, mut book) = (rng(), Book::with_key((1, 2)));
    for n in 0..5000u32 {
        let [_, _, c, d] = n.to_be_bytes();
        let told = v4(50, 60, c, d);
        book.add(&told, Host::V4([(n % 200) as u8 + 20, (n / 200) as u8 + 1, 1, 1]), 0, NOW, &mut rng);
        book.good(&told.addr, NOW);
    }
    assert!(book.tried.len() <= 8, "{} buckets", book.tried.len());
    assert!(book.tried_len() > 300, "{} tried", book.tried_len());
    check(&book);
}

#[test]
fn unroutable_addresses_are_not_kept() {
    let (mut rng, mut book) = (rng(), Book::with_key((1, 2)));
    for host in [[127, 0, 0, 1], [10, 1, 1, 1], [192, 168, 1, 1], [0, 0, 0, 0], [255, 255, 255, 255]] {
        let told = AddrEntry { addr: NetAddr { host: Host::V4(host), port: 1 }, ..v4(1, 1, 1, 1) };
        assert!(!book.add(&told, Host::V4([8, 8, 8, 8]), 0, NOW, &mut rng), "{host:?}");
    }
    assert!(book.is_empty());
}

/// Two addresses that want the same place in tried.
fn rivals(book: &Book) -> (AddrEntry, AddrEntry) {
    let mut seen = BTreeMap::new();
    for n in 0..=u16::MAX {
        let [c, d] = n.to_be_bytes();
        let told = v4(50, 60, c, d);
        if let Some(other) = seen.insert(book.tried_place(&told.addr), told) {
            return (other, told);
        }
    }
    panic!("512 places and 65536 addresses");
}

#[test]
fn a_tried_address_is_tested_before_another_takes_its_place() {
    for (answers, at, kept) in [(true, NOW + 5 * HOUR, true), (false, NOW + 5 * HOUR, false)] {
        let (mut rng, mut book) = (rng(), Book::with_key((1, 2)));
        let (old, new) = rivals(&book);
        let source = Host::V4([8, 8, 8, 8]);
        for told in [&old, &new] {
            assert!(book.add(told, source, 0, NOW, &mut rng));
        }
        book.good(&old.addr, NOW);
        book.good(&new.addr, at);
        assert_eq!(book.tried_len(), 1, "the new one waits");
        let (test, _) = book.select_collision(&mut rng).expect("a collision waits");
        assert_eq!(test.addr, old.addr);
        book.attempted(&old.addr, true, at + 1);
        if answers {
            book.good(&old.addr, at + 2);
        }
        book.resolve_collisions(at + 2);
        book.resolve_collisions(at + 2 * MINUTE);
        let holder = book.entries.values().find(|entry| entry.tried).expect("one is tried");
        assert_eq!(holder.addr == old.addr, kept, "the old one answers: {answers}");
        assert_eq!(book.collisions.len(), 0);
        assert_eq!(book.len(), 2, "the other is not forgotten");
        check(&book);
    }
}

#[test]
fn useless_addresses_lose_their_place_and_are_not_given_away() {
    let entry = |time: u64, attempts: u32, last_success: u64| Entry {
        addr: v4(1, 2, 3, 4).addr,
        services: 0,
        time,
        source: Host::V4([1; 4]),
        last_try: NOW - HOUR,
        last_success,
        attempts,
        tried: false,
        places: 1,
    };
    for (case, terrible) in [
        (entry(NOW, 0, 0), false),
        (entry(NOW + 11 * MINUTE, 0, 0), true),
        (entry(NOW - 31 * DAY, 0, NOW), true),
        (entry(NOW - 29 * DAY, 0, 0), false),
        (entry(NOW, 3, 0), true),
        (entry(NOW, 9, NOW - 8 * DAY), false),
        (entry(NOW, 10, NOW - 8 * DAY), true),
        (entry(NOW, 10, NOW - 6 * DAY), false),
        (Entry { last_try: NOW - 30, ..entry(NOW, 10, 0) }, false),
    ] {
        assert_eq!(case.is_terrible(NOW), terrible, "{case:?}");
    }
}

#[test]
fn failures_count_only_while_others_answer() {
    let (mut rng, mut book) = (rng(), Book::with_key((1, 2)));
    let told = v4(50, 60, 1, 1);
    book.add(&told, Host::V4([8, 8, 8, 8]), 0, NOW, &mut rng);
    let attempts = |book: &Book| book.entries[&book.by_addr[&told.addr]].attempts;
    for n in 0..5 {
        book.attempted(&told.addr, true, NOW + n);
    }
    assert_eq!(attempts(&book), 1, "nobody else answered since");
    book.good(&v4(9, 9, 9, 9).addr, NOW + 100);
    book.attempted(&told.addr, true, NOW + 101);
    assert_eq!(attempts(&book), 2);
}

#[test]
fn drawing_reaches_new_and_tried_and_avoids_failures() {
    let (mut rng, mut book) = (rng(), Book::with_key((1, 2)));
    assert!(book.select(false, NOW, &mut rng).is_none());
    for n in 0..40 {
        let told = v4(20 + n, 1, 1, 1);
        book.add(&told, Host::V4([8, 8, n, 8]), 0, NOW, &mut rng);
        if n < 10 {
            book.good(&told.addr, NOW - DAY);
        }
    }
    let draws: Vec<AddrEntry> =
        (0..2000).map(|_| book.select(false, NOW, &mut rng).expect("there are some").0).collect();
    let tried = draws.iter().filter(|told| matches!(told.addr.host, Host::V4([20..30, ..]))).count();
    assert!((850..1150).contains(&tried), "{tried} of 2000 draws are tried ones");
    let distinct: BTreeSet<NetAddr> = draws.iter().map(|told| told.addr).collect();
    assert_eq!(distinct.len(), 40);
    assert!(
        book.select(true, NOW, &mut rng).is_some_and(|(told, _)| !matches!(told.addr.host, Host::V4([20..30, ..])))
    );
    assert_eq!(book.sample(1000, 23, None, NOW, &mut rng).len(), 9);
    assert_eq!(book.sample(5, 100, Some(Network::Ipv4), NOW, &mut rng).len(), 5);
    assert!(book.sample(5, 100, Some(Network::Onion), NOW, &mut rng).is_empty());
}

#[test]
fn a_book_comes_back_from_its_bytes() {
    let (mut rng, mut book) = (rng(), Book::with_key((3, 4)));
    for n in 0..2000u32 {
        let [_, b, c, d] = n.to_be_bytes();
        let told = v4(20 + (n % 100) as u8, b + 1, c, d);
        book.add(&told, Host::V4([30 + (n % 50) as u8, 1, 1, 1]), 0, NOW, &mut rng);
        if n % 5 == 0 {
            book.good(&told.addr, NOW);
        }
    }
    check(&book);
    let again = Book::from_bytes(&book.to_bytes(), NOW).expect("its own bytes");
    check(&again);
    assert_eq!((again.len(), again.tried_len()), (book.len(), book.tried_len()));
    assert_eq!(again.tried, {
        let number = |id: &u64| again.by_addr[&book.entries[id].addr];
        let places = |held: &BTreeMap<u64, u64>| held.iter().map(|(place, id)| (*place, number(id))).collect();
        book.tried.iter().map(|(bucket, held)| (*bucket, places(held))).collect::<Table>()
    });
    assert!(matches!(Book::from_bytes(&[9, 1, 1], NOW), Err(BookError::Format(9))));
    assert!(matches!(Book::from_bytes(&[1, 1, 1], NOW), Err(BookError::Damaged(_))));
}
