//! Whatever has a stated bound stays within it.

use super::Invariant;
use crate::fact::Fact;

#[derive(Default)]
pub(super) struct WithinBounds;

impl Invariant for WithinBounds {
    fn name(&self) -> &'static str {
        "within-bounds"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Stands { what, found, bound } if found > bound => {
                Err(format!("{what} holds {found}, at most {bound} expected"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::verdict;
    use super::*;

    #[test]
    fn too_much_of_anything_is_found() {
        let stands = |found| Fact::Stands { what: "queue", found, bound: 8 };
        assert_eq!(verdict(WithinBounds, &[stands(1), stands(8)]), Ok(()));
        assert!(verdict(WithinBounds, &[stands(1), stands(9)]).is_err());
    }
}
