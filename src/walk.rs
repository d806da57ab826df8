//! Trees in order, without recursion and without a limit on their depth.

/// What a place yields: answers and further places, in the order in which they are to come out.
pub enum Item<P, R> {
    Row(R),
    Place(P),
}

/// Visits a tree depth first. `visit` is given a place and says what is there; its places are
/// visited where they stand among its rows.
pub struct Walk<P, R, F> {
    pending: Vec<std::vec::IntoIter<Item<P, R>>>,
    visit: F,
}

pub fn walk<P, R, F: FnMut(P) -> Vec<Item<P, R>>>(root: P, visit: F) -> Walk<P, R, F> {
    Walk {
        pending: vec![vec![Item::Place(root)].into_iter()],
        visit,
    }
}

impl<P, R, F: FnMut(P) -> Vec<Item<P, R>>> Iterator for Walk<P, R, F> {
    type Item = R;

    fn next(&mut self) -> Option<R> {
        loop {
            match self.pending.last_mut()?.next() {
                Some(Item::Row(row)) => return Some(row),
                Some(Item::Place(place)) => self.pending.push((self.visit)(place).into_iter()),
                None => {
                    self.pending.pop();
                }
            }
        }
    }
}
