//! How a world is cut into regions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most regions of a world.
pub const REGIONS_MAX: u32 = 4096;

/// A grid of regions over a world's ground. In words: `4x4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GridConfig {
    /// Regions from west to east.
    pub columns: u32,
    /// Regions from north to south.
    pub rows: u32,
}

impl Default for GridConfig {
    fn default() -> Self {
        Self { columns: 1, rows: 1 }
    }
}

impl GridConfig {
    /// How many regions there are.
    #[must_use]
    pub fn regions(self) -> u32 {
        self.columns.saturating_mul(self.rows)
    }

    /// Checks that there is one region and not too many.
    ///
    /// # Errors
    /// What is wrong, in words that come after the name of the setting.
    pub fn validate(self) -> Result<(), String> {
        if self.columns == 0 || self.rows == 0 {
            return Err("must have at least one column and one row".to_owned());
        }
        if self.regions() > REGIONS_MAX {
            return Err(format!("has {} regions; {REGIONS_MAX} are the most", u64::from(self.columns) * u64::from(self.rows)));
        }
        Ok(())
    }
}

impl FromStr for GridConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sides = text.split_once('x').and_then(|(columns, rows)| Some((columns.parse().ok()?, rows.parse().ok()?)));
        let Some((columns, rows)) = sides else {
            return Err("is no grid: columns and rows are written 4x4".to_owned());
        };
        let grid = Self { columns, rows };
        grid.validate().map(|()| grid)
    }
}

impl fmt::Display for GridConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.columns, self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_read_and_checked() {
        let grid: GridConfig = "4x3".parse().unwrap();
        assert_eq!((grid, grid.regions(), grid.to_string()), (GridConfig { columns: 4, rows: 3 }, 12, "4x3".to_owned()));
        assert!("64x64".parse::<GridConfig>().is_ok());
        for (bad, word) in [
            ("4", "4x4"),
            ("4x", "4x4"),
            ("-1x1", "4x4"),
            ("0x3", "at least one"),
            ("65x64", "4160"),
            ("4294967295x4294967295", "4096 are the most"),
        ] {
            let error = bad.parse::<GridConfig>().unwrap_err();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }
}
