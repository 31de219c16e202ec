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
