import SyncCore
import Testing

@Suite struct QuarantineMachineTests {
  private func tried() -> QuarantineMachine {
    var machine = QuarantineMachine()
    _ = machine.looked("as it was", at: .zero)
    machine.tried(released: 0, from: .zero, to: .zero)
    return machine
  }

  @Test func rowsAreTriedAtTheStart() {
    var machine = QuarantineMachine()
    #expect(machine.isWorthALook(at: .zero))
    let first = machine.looked("x", at: .zero)
    #expect(first)
  }

  @Test func rowsAreTriedWhenATableWasAltered() {
    var machine = tried()
    #expect(machine.isWorthALook(at: .seconds(5)))
    let first = machine.looked("as it was", at: .seconds(5))
    #expect(!first)
    let second = machine.looked("a constraint less", at: .seconds(10))
    #expect(second)
  }

  @Test func rowsAreTriedAfterOthersWereApplied() {
    var machine = tried()
    #expect(!machine.isWorthALook(at: .seconds(2)))
    machine.rowsApplied()
    #expect(machine.isWorthALook(at: .seconds(2)))
    let first = machine.looked("as it was", at: .seconds(2))
    #expect(first)
  }

  @Test func rowsAreTriedNowAndThenInAnyCase() {
    var machine = tried()
    let first = machine.looked("as it was", at: .seconds(29))
    #expect(!first)
    let second = machine.looked("as it was", at: .seconds(30))
    #expect(second)
  }

  @Test func tryingRestsTenTimesAsLongAsItTook() {
    var machine = QuarantineMachine()
    _ = machine.looked("x", at: .zero)
    machine.tried(released: 3, from: .zero, to: .seconds(2))
    #expect(!machine.isWorthALook(at: .seconds(21)))
    #expect(machine.isWorthALook(at: .seconds(22)), "what went in may be a parent")
  }

  @Test func anEmptyQuarantineIsNotTried() {
    var machine = QuarantineMachine()
    let first = machine.looked(nil, at: .zero)
    #expect(!first)
    #expect(!machine.isWorthALook(at: .seconds(1)))
  }
}
