import Testing

@testable import SyncCore

struct FeedMarkTests {
  private func mark(_ local: RowState<String>?, _ incoming: RowState<String>, atHead: Bool) -> FeedMark {
    let outcome = merge(local: local, incoming: incoming, policy: Policy(), arbiter: atHead ? head() : nil)
    return .of(outcome, local: local, incoming: incoming, atHead: atHead)
  }

  @Test func headSendsOnWhatItStores() {
    #expect(mark(nil, row("a", dot(1, 1), at: 1), atHead: true) == .publish)
    #expect(mark(row("b", dot(2, 1), at: 1), row("a", dot(1, 1), at: 1), atHead: true) == .publish)
    #expect(mark(row("a", dot(1, 1), at: 1), row("a", dot(1, 1), at: 1), atHead: true) == .leave)
  }

  @Test func aBranchSendsBackNothingThatHeadHas() {
    let theirs = row("a", dot(1, 1), at: 1)
    #expect(mark(nil, theirs, atHead: false) == .echo)
    #expect(mark(theirs, theirs, atHead: false) == .echo)
    #expect(mark(row("b", dot(2, 1), at: 2, seen: dot(1, 1)), theirs, atHead: false) == .leave)
  }

  @Test func aBranchPublishesWhatItHolds() {
    #expect(mark(row("b", dot(2, 1), at: 1), row("a", dot(1, 1), at: 1), atHead: false) == .publish)
  }
}
