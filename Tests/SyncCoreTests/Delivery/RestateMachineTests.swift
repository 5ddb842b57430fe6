import SyncCore
import Testing

@Suite struct RestateMachineTests {
  @Test func aRequestIsSentOnceWhileItsAnswerMayArrive() {
    var machine = RestateMachine()
    let nothing = machine.due([], at: .zero)
    let first = machine.due([1, 2], at: .seconds(1))
    let another = machine.due([1, 2, 3], at: .seconds(2))
    machine.answered(1)
    let rest = machine.due([2, 3], at: .seconds(3))
    #expect(nothing.isEmpty && first == [1, 2] && another == [3] && rest.isEmpty)
  }

  @Test func whatIsNotAnsweredIsAskedForAgainAfterLongerAndLonger() {
    var machine = RestateMachine()
    let sent = [0, 1, 2, 3].map { machine.due([7], at: Limits.answerWithin * $0) }
    #expect(sent == [[7], [7], [], [7]])
    machine.answered(7)
    let next = [3, 4].map { machine.due([8], at: Limits.answerWithin * $0) }
    #expect(next == [[8], [8]], "answered: patience is new")
  }

  @Test func aNewConnectionAsksForEverythingAgain() {
    var machine = RestateMachine()
    let first = machine.due([7], at: .zero)
    machine.disconnected()
    let again = machine.due([7], at: .seconds(1))
    #expect(first == [7] && again == [7])
  }
}
