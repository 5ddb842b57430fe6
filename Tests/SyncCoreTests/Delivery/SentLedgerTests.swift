import SyncCore
import Testing

@Suite struct SentLedgerTests {
  private func amount(_ rows: Int, _ bytes: Int) -> SentLedger.Amount { SentLedger.Amount(rows: rows, bytes: bytes) }

  @Test func anAcknowledgementIsWorthTheBatchesSinceTheLastOne() {
    var ledger = SentLedger()
    for number in Int64(1)...3 {
      ledger.sent(rows: 10, bytes: 100, of: number)
      ledger.sent(rows: 5, bytes: 50, of: number)
    }
    #expect(ledger.acknowledged(1, by: "a") == amount(15, 150))
    #expect(ledger.acknowledged(3, by: "a") == amount(30, 300))
    #expect(ledger.acknowledged(3, by: "a") == amount(0, 0))
    #expect(ledger.acknowledged(2, by: "b") == amount(30, 300))
  }

  @Test func whoCatchesUpDidNotTakeTheBatchesThatPassedItBy() {
    var ledger = SentLedger()
    ledger.sent(rows: 10, bytes: 1000, of: 1)
    #expect(ledger.asked(by: "a") == amount(0, 0))
    ledger.sentWindow(rows: 7, bytes: 70, to: "a")
    #expect(ledger.asked(by: "a") == amount(7, 70))
    ledger.sentWindow(rows: 3, bytes: 30, to: "a")
    ledger.sent(rows: 1, bytes: 10, of: 2)
    #expect(ledger.acknowledged(1, by: "a") == amount(3, 30))
    #expect(ledger.acknowledged(2, by: "a") == amount(1, 10))
  }
}
