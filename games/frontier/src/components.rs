//! What the rules remember about entities. Tags are in checkpoints: they are never reused.

use marchland_region_core::{CodecError, Component, Reader, Writer};

/// Ore in the ground.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vein {
    /// Kind of the ore.
    pub ore: u32,
    /// How often one can gather from it now.
    pub left: u32,
    /// How often when it has grown.
    pub most: u32,
}

impl Component for Vein {
    const TAG: u32 = 1;
    const NAME: &'static str = "vein";

    fn put(&self, out: &mut Writer) {
        out.u32(self.ore);
        out.u32(self.left);
        out.u32(self.most);
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self { ore: input.u32()?, left: input.u32()?, most: input.u32()? })
    }
}

/// An animal: where it belongs, and what it does.
#[derive(Clone, Debug, PartialEq)]
pub struct Animal {
    /// The middle of its ground (east, south), in metres. It is never farther from there than [`LEASH_M`](crate::LEASH_M) along either axis.
    pub home: [f32; 2],
    /// Metres a second (east, south); nothing while it grazes.
    pub velocity: [f32; 2],
    /// Herd time until which it does so, in milliseconds.
    pub until_ms: u64,
}

impl Component for Animal {
    const TAG: u32 = 3;
    const NAME: &'static str = "animal";

    fn put(&self, out: &mut Writer) {
        for value in self.home.into_iter().chain(self.velocity) {
            out.f32(value);
        }
        out.u64(self.until_ms);
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self { home: [input.f32()?, input.f32()?], velocity: [input.f32()?, input.f32()?], until_ms: input.u64()? })
    }
}

/// The time of a region's animals, kept by one of them. It stands still while the region sleeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Herd {
    /// Herd time in milliseconds, from 0.
    pub time_ms: u64,
    /// Region time to which that has come, in milliseconds.
    pub at_ms: u64,
}

impl Component for Herd {
    const TAG: u32 = 4;
    const NAME: &'static str = "herd";

    fn put(&self, out: &mut Writer) {
        out.u64(self.time_ms);
        out.u64(self.at_ms);
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self { time_ms: input.u64()?, at_ms: input.u64()? })
    }

    fn shift_ms(&mut self, later_ms: i64) {
        self.at_ms = self.at_ms.saturating_add_signed(later_ms);
    }
}

/// A character's hands, which rest after work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hands {
    /// Region time from which they can work again, in milliseconds.
    pub free_at_ms: u64,
}

impl Component for Hands {
    const TAG: u32 = 2;
    const NAME: &'static str = "hands";

    fn put(&self, out: &mut Writer) {
        out.u64(self.free_at_ms);
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self { free_at_ms: input.u64()? })
    }

    fn shift_ms(&mut self, later_ms: i64) {
        self.free_at_ms = self.free_at_ms.saturating_add_signed(later_ms);
    }
}
