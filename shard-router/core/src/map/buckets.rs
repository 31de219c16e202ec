//! An index of a map by place: the ground is cut into about as many equal buckets as there are regions, and each knows the regions
//! that reach into it. What is asked of it is a superset; whoever asks compares edges.

use super::MapRegion;

/// Buckets along one side, so that the largest map's index stays small.
const SIDE_MAX: usize = 64;

/// Regions by place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Buckets {
    side: usize,
    low: [f64; 2],
    /// Buckets in a metre.
    per_m: [f64; 2],
    /// Where each bucket begins in `regions`, row by row, and where the last one ends.
    begins: Vec<u32>,
    regions: Vec<u32>,
}

impl Buckets {
    /// Over the ground of all `regions`, which are finite.
    pub(super) fn over(regions: &[MapRegion]) -> Self {
        let side = (regions.len() as f64).sqrt().ceil().clamp(1.0, SIDE_MAX as f64) as usize;
        let reduce = |pick: fn(&MapRegion) -> [f32; 2], best: fn(f64, f64) -> f64, from: f64| {
            let better = |at: [f64; 2], r: &MapRegion| [best(at[0], pick(r)[0].into()), best(at[1], pick(r)[1].into())];
            regions.iter().fold([from; 2], better)
        };
        let low = reduce(|r| r.min_m, f64::min, f64::INFINITY);
        let high = reduce(|r| r.max_m, f64::max, f64::NEG_INFINITY);
        let per_m = [0, 1].map(|axis| side as f64 / (high[axis] - low[axis]).max(f64::MIN_POSITIVE));
        let mut index = Self { side, low, per_m, begins: vec![0; side * side + 1], regions: Vec::new() };
        // Counted first, then filled from the ends, so that each bucket is in order and nothing is allocated for each.
        for region in regions {
            for bucket in index.reached(region.min_m, region.max_m) {
                index.begins[bucket] += 1;
            }
        }
        let mut total = 0;
        for begin in &mut index.begins {
            total += *begin;
            *begin = total;
        }
        index.regions = vec![0; total as usize];
        for (at, region) in regions.iter().enumerate().rev() {
            for bucket in index.reached(region.min_m, region.max_m) {
                index.begins[bucket] -= 1;
                let place = index.begins[bucket] as usize;
                index.regions[place] = at as u32;
            }
        }
        index
    }

    /// Regions that may hold a position.
    pub(super) fn at(&self, at: [f32; 2]) -> &[u32] {
        self.bucket(self.line(0, at[0]), self.line(1, at[1]))
    }

    /// Regions that may reach into a rectangle, some of them repeatedly.
    pub(super) fn between(&self, low: [f32; 2], high: [f32; 2]) -> impl Iterator<Item = u32> {
        self.reached(low, high).flat_map(|bucket| {
            let [begin, end] = [self.begins[bucket], self.begins[bucket + 1]];
            self.regions[begin as usize..end as usize].iter().copied()
        })
    }

    fn bucket(&self, column: usize, row: usize) -> &[u32] {
        let bucket = row * self.side + column;
        &self.regions[self.begins[bucket] as usize..self.begins[bucket + 1] as usize]
    }

    fn reached(&self, low: [f32; 2], high: [f32; 2]) -> impl Iterator<Item = usize> + use<> {
        let columns = self.line(0, low[0])..=self.line(0, high[0]);
        let (side, rows) = (self.side, self.line(1, low[1])..=self.line(1, high[1]));
        rows.flat_map(move |row| columns.clone().map(move |column| row * side + column))
    }

    /// Column or row of a coordinate: never less for a greater one, which is all that looking up rests on. NaN goes to the first.
    fn line(&self, axis: usize, v: f32) -> usize {
        (((f64::from(v) - self.low[axis]) * self.per_m[axis]) as usize).min(self.side - 1)
    }
}
