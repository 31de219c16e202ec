//! All regions that an edge's loop follows, in one table.
//!
//! What always holds: a region has one view; a [`ViewId`] is good from [`Views::open`] until [`Views::close`], which refuses as long
//! as somebody follows the view.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

use marchland_types::GroupId;

use crate::view::RegionView;

/// Names a view in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewId(u32);

/// Views by number and by group. There are no more of them than regions that somebody here plays in or sees.
#[derive(Debug, Default)]
pub struct Views {
    views: Vec<RegionView>,
    by_group: BTreeMap<GroupId, ViewId>,
    free: Vec<ViewId>,
    opened: Vec<GroupId>,
}

impl Views {
    /// The view of a region, made if there is none.
    pub fn open(&mut self, group: GroupId) -> ViewId {
        if let Some(&known) = self.by_group.get(&group) {
            return known;
        }
        let view = RegionView::new(group);
        let id = match self.free.pop() {
            Some(id) => {
                self[id] = view;
                id
            }
            None => {
                self.views.push(view);
                ViewId(self.views.len() as u32 - 1)
            }
        };
        self.by_group.insert(group, id);
        self.opened.push(group);
        id
    }

    /// Regions whose views were made since the last call.
    pub fn take_opened(&mut self) -> Vec<GroupId> {
        std::mem::take(&mut self.opened)
    }

    /// Forgets a region that nobody follows. `false`, and nothing changes, if somebody does.
    pub fn close(&mut self, group: GroupId) -> bool {
        let Some(&id) = self.by_group.get(&group) else { return true };
        if self[id].is_followed() {
            return false;
        }
        self[id] = RegionView::new(group);
        self.by_group.remove(&group);
        self.opened.retain(|opened| *opened != group);
        self.free.push(id);
        true
    }

    /// The view of a region, if there is one.
    #[must_use]
    pub fn find(&self, group: GroupId) -> Option<ViewId> {
        self.by_group.get(&group).copied()
    }
}

impl Index<ViewId> for Views {
    type Output = RegionView;

    #[inline]
    fn index(&self, id: ViewId) -> &RegionView {
        &self.views[id.0 as usize]
    }
}

impl IndexMut<ViewId> for Views {
    #[inline]
    fn index_mut(&mut self, id: ViewId) -> &mut RegionView {
        &mut self.views[id.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_that_is_followed_stays() {
        let mut views = Views::default();
        let (a, b) = (views.open(GroupId(1)), views.open(GroupId(2)));
        assert_eq!((views.open(GroupId(1)), views.find(GroupId(2)), views.find(GroupId(3))), (a, Some(b), None));
        assert_eq!(views.take_opened(), [GroupId(1), GroupId(2)]);
        views[a].follow();
        assert!(!views.close(GroupId(1)) && views.close(GroupId(2)) && views.close(GroupId(2)));
        views[a].unfollow();
        assert!(views.close(GroupId(1)) && views.find(GroupId(1)).is_none());
        assert_eq!(views.open(GroupId(9)), a, "its place is used again");
        assert_eq!((views[a].group(), views.take_opened()), (GroupId(9), vec![GroupId(9)]));
    }
}
