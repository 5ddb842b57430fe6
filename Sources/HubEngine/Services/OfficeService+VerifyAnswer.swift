import Logging
import SyncCore
import SyncWire

/// Branch: answers head's questions of a comparison, one after the other, beside everything else: they read whole
/// tables.
extension OfficeService {
  /// A head that asks more than this at once has forgotten the first ones.
  private static let questionsMax = 8

  /// The same question again is about one that waits, or is being answered.
  func verifyAsked(_ token: Int64, _ request: VerifyRequest) {
    guard !questions.contains(where: { $0.token == token }) else { return }
    if questions.count >= Self.questionsMax { questions.remove(at: 1) }
    questions.append((token, request))
    verifyBell.ring()
  }

  func verifyAnswerLoop() async throws {
    // What was asked over an earlier connection is asked again.
    questions = []
    try await verifyBell.serve {
      while let question = questions.first {
        var reply: VerifyReply
        do {
          reply = try await self.reply(to: question.request)
        } catch let error as HubError where !error.isDisconnect {
          reply = .refused("\(error)")
        }
        do {
          try await send(.verifyAnswer(token: question.token, reply), to: .head)
        } catch let error as WireError {
          try await send(.verifyAnswer(token: question.token, .refused("\(error)")), to: .head)
        }
        questions.removeFirst()
        if questions.isEmpty { verifiedAt = .now }
      }
    }
  }

  private func reply(to request: VerifyRequest) async throws -> VerifyReply {
    switch request {
    case .compare(let question): .compared(try await store.verify(question, with: nil))
    case .contents(let scope, let keys): .contents(try await store.contents(scope, keys))
    case .restate(let table, let rows):
      .restated(try await store.restate(rows, of: table, overwritten: [], from: identity.head))
    case .pass: .passed(try await lastBatchOfAll(since: .now))
    }
  }

  /// A connection that nobody asked anything over lately is not kept.
  func closeIdleVerifier() async {
    guard let at = verifiedAt, at + .seconds(60) < .now, questions.isEmpty else { return }
    verifiedAt = nil
    await store.endVerifying()
  }
}
