import SyncCore
import Testing

@Suite struct ConflictDeliveryTests {
  @Test func entriesAreSentFromWhereTheBranchSaysThatItStands() {
    var delivery = ConflictDelivery()
    #expect(delivery.logged() == nil, "the branch may have any of them")
    let first = delivery.arrived(7, at: .zero)
    #expect(first == 7)
    delivery.sent(through: 9, at: .zero)
    #expect(delivery.logged() == 9, "what is logged next follows what is on its way")
  }

  @Test func whatIsOnItsWayIsNotSentTwice() {
    var delivery = ConflictDelivery()
    _ = delivery.arrived(0, at: .zero)
    delivery.sent(through: 500, at: .seconds(1))
    let first = delivery.arrived(0, at: .seconds(5))
    #expect(first == nil)
    let second = delivery.arrived(200, at: .seconds(14))
    #expect(second == nil)
    let third = delivery.arrived(200, at: .seconds(20))
    #expect(third == nil, "it moved at 14 s")
    let fourth = delivery.arrived(500, at: .seconds(25))
    #expect(fourth == 500)
  }

  @Test func whatTheBrokerLostIsSentAgain() {
    var delivery = ConflictDelivery()
    _ = delivery.arrived(3, at: .zero)
    delivery.sent(through: 5, at: .seconds(1))
    delivery.sent(through: 6, at: .seconds(9))
    let first = delivery.arrived(3, at: .seconds(15))
    #expect(first == nil)
    let second = delivery.arrived(3, at: .seconds(16))
    #expect(second == 3)
  }

  @Test func aNewConnectionWaitsForTheBranchToSpeak() {
    var delivery = ConflictDelivery()
    _ = delivery.arrived(3, at: .zero)
    delivery.sent(through: 5, at: .seconds(1))
    delivery.disconnected()
    #expect(delivery.logged() == nil)
    let first = delivery.arrived(3, at: .seconds(2))
    #expect(first == 3)
  }

  @Test func aBranchWithAnotherDatabaseBeginsAnew() {
    var delivery = ConflictDelivery()
    _ = delivery.arrived(9, at: .zero)
    let first = delivery.arrived(0, at: .seconds(5))
    #expect(first == nil, "a late beat looks the same at first")
    let second = delivery.arrived(0, at: .seconds(30))
    #expect(second == 0)
  }
}
