//! One of the two tables of the peer book: buckets of places, each empty or holding the number of an entry. Buckets take
//! memory only while they hold something.

use rand::Rng;

/// Places in a bucket. Core: `ADDRMAN_BUCKET_SIZE`.
pub(super) const BUCKET_SIZE: usize = 64;

/// Where something is: bucket and place in it.
pub(super) type Place = (u16, u8);

const NOBODY: u32 = u32::MAX;

#[derive(Debug, Default)]
struct Bucket {
    places: Option<Box<[u32; BUCKET_SIZE]>>,
    held: u8,
    /// Where `Table::filled` names it.
    at: u16,
}

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    size: u16,
    /// As many as `size`, or none while the table is empty for the first time.
    buckets: Vec<Bucket>,
    /// The buckets that hold something, in no order.
    filled: Vec<u16>,
}

impl Table {
    pub(super) fn new(size: u16) -> Table {
        Table { size, buckets: Vec::new(), filled: Vec::new() }
    }

    pub(super) fn get(&self, (bucket, place): Place) -> Option<u32> {
        let places = self.buckets.get(usize::from(bucket))?.places.as_ref()?;
        Some(places[usize::from(place)]).filter(|id| *id != NOBODY)
    }

    /// Puts an entry into a place that is free.
    pub(super) fn put(&mut self, (number, place): Place, id: u32) {
        if self.buckets.is_empty() {
            self.buckets.resize_with(usize::from(self.size), Bucket::default);
        }
        let bucket = &mut self.buckets[usize::from(number)];
        let places = bucket.places.get_or_insert_with(|| {
            bucket.at = u16::try_from(self.filled.len()).expect("no more buckets than a u16 counts");
            self.filled.push(number);
            Box::new([NOBODY; BUCKET_SIZE])
        });
        debug_assert_eq!(places[usize::from(place)], NOBODY, "the place is free");
        places[usize::from(place)] = id;
        bucket.held += 1;
    }

    /// Takes what a place holds.
    pub(super) fn take(&mut self, at: Place) -> Option<u32> {
        let taken = self.get(at)?;
        let bucket = &mut self.buckets[usize::from(at.0)];
        if let Some(places) = &mut bucket.places {
            places[usize::from(at.1)] = NOBODY;
        }
        bucket.held -= 1;
        if bucket.held == 0 {
            bucket.places = None;
            let hole = bucket.at;
            self.filled.swap_remove(usize::from(hole));
            if let Some(moved) = self.filled.get(usize::from(hole)) {
                self.buckets[usize::from(*moved)].at = hole;
            }
        }
        Some(taken)
    }

    /// Draws a bucket that holds something, and gives what it holds, beginning at a random place.
    pub(super) fn draw(&self, rng: &mut impl Rng) -> impl Iterator<Item = u32> {
        let bucket = &self.buckets[usize::from(self.filled[rng.random_range(0..self.filled.len())])];
        let places = bucket.places.as_ref().expect("a filled bucket").as_slice();
        let (before, after) = places.split_at(rng.random_range(0..BUCKET_SIZE));
        after.iter().chain(before).copied().filter(|id| *id != NOBODY)
    }

    /// Everything that it holds, in order of place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Place, u32)> {
        let places = |(number, bucket): (usize, &Bucket)| {
            let held: Vec<(Place, u32)> = bucket.places.as_ref().map_or_else(Vec::new, |places| {
                let held = places.iter().enumerate().filter(|(_, id)| **id != NOBODY);
                held.map(|(place, id)| ((number as u16, place as u8), *id)).collect()
            });
            held
        };
        self.buckets.iter().enumerate().flat_map(places)
    }

    /// Number of buckets that hold something.
    #[cfg(test)]
    pub(super) fn filled(&self) -> usize {
        self.filled.len()
    }
}
