import Foundation
import HubEngine
import Synchronization
import Testing

@testable import RabbitTransport

extension BrokerTests {
  /// What happens to the broker as a whole; nothing else may run beside it.
  @Suite(.serialized) struct Suffering {
    @Test("BRK-05: under a memory alarm publishing waits without holding a thread, and goes on afterwards")
    func publishingWaitsOutAnAlarm() async throws {
      try await TestBroker.with { broker in
        let head = try #require(
          try await broker.transport().open(.head(offices: ["north"])) as? RabbitSession)
        let branch = try await broker.transport().open(.branch(office: "north"))
        try await head.publish([0], to: .branches, messageID: "before")
        let before = try await within(.seconds(5)) { try await branch.next() }
        let alarm = try MemoryAlarm()
        defer { alarm.end() }
        let published = Mutex(0)
        let body = [UInt8](repeating: 5, count: 1 << 20)
        let publishing = Task {
          for number in 1...40 {
            try await head.publish(body, to: .branches, messageID: "\(number)")
            published.withLock { $0 += 1 }
          }
          try await head.confirmed()
        }
        try await eventually { await head.isBlocked }
        try await Task.sleep(for: .seconds(1))
        let stopped = published.withLock { $0 }
        #expect(stopped < 40)
        // The publisher's thread answers, and the consumer's side works on.
        let start = ContinuousClock.now
        _ = try await within(.seconds(2)) { await head.publisher.isDeaf }
        #expect(start.duration(to: .now) < .milliseconds(500))
        #expect(head.fate.sockets.allSatisfy { $0.busyFor < .seconds(1) })
        try await branch.acknowledge(before.tag)
        try await within(.seconds(5)) { try await head.declareOffice("south") }
        alarm.end()
        for _ in 1...40 {
          let delivery = try await within(.seconds(20)) { try await branch.next() }
          try await branch.acknowledge(delivery.tag)
        }
        try await within(.seconds(10)) { try await publishing.value }
        #expect(await !head.isBlocked)
        await branch.close()
        await head.close()
      }
    }

    @Test("BRK-05: a session closes during an alarm, and who waits is told", arguments: [1, 4 << 20])
    func aSessionClosesDuringAnAlarm(size: Int) async throws {
      try await TestBroker.with { broker in
        let head = try await broker.transport(confirmWindow: 4).open(.head(offices: []))
        let alarm = try MemoryAlarm()
        defer { alarm.end() }
        let publishing = Task {
          await kind {
            while true {
              try await head.publish([UInt8](repeating: 1, count: size), to: .head, messageID: "x")
            }
          }
        }
        try await eventually { await head.isBlocked }
        let confirming = Task { await kind { try await head.confirmed() } }
        try await Task.sleep(for: .milliseconds(200))
        let start = ContinuousClock.now
        await head.close()
        #expect(start.duration(to: .now) < .seconds(3))
        #expect(try await within(.seconds(1)) { await publishing.value } == .closed)
        #expect(try await within(.seconds(1)) { await confirming.value } == .closed)
      }
    }

    @Test("BRK-05: a publisher that waits for an alarm can be cancelled", arguments: [1, 4 << 20])
    func aWaitingPublisherIsCancelled(size: Int) async throws {
      try await TestBroker.with { broker in
        let head = try await broker.transport(confirmWindow: 4).open(.head(offices: []))
        let alarm = try MemoryAlarm()
        defer { alarm.end() }
        let publishing = Task {
          await kind {
            while true {
              try await head.publish([UInt8](repeating: 1, count: size), to: .head, messageID: "x")
            }
          }
        }
        try await eventually { await head.isBlocked }
        try await Task.sleep(for: .milliseconds(200))
        publishing.cancel()
        #expect(try await within(.seconds(3)) { await publishing.value } == .closed)
        await head.close()
      }
    }

    @Test("BRK-06: a session idle or blocked for longer than its heartbeats lives", arguments: [false, true])
    func anIdleSessionLives(blocked: Bool) async throws {
      try await TestBroker.with { broker in
        let head = try await broker.transport(heartbeat: .seconds(2)).open(.head(offices: []))
        let alarm = blocked ? try MemoryAlarm() : nil
        defer { alarm?.end() }
        let publishing = Task {
          guard blocked else { return }
          for number in 1...8 {
            try await head.publish([UInt8](repeating: 1, count: 1 << 20), to: .head, messageID: "\(number)")
          }
        }
        if blocked { try await eventually { await head.isBlocked } }
        try await Task.sleep(for: .seconds(9))
        alarm?.end()
        try await within(.seconds(5)) { try await publishing.value }
        try await head.publish([1], to: .head, messageID: "after")
        try await within(.seconds(5)) { try await head.confirmed() }
        await head.close()
      }
    }

    @Test("BRK-06: a broker that hangs is noticed, and close does not wait for it")
    func aHungBrokerIsNoticed() async throws {
      try await TestBroker.with { broker in
        let quick = try await broker.transport(heartbeat: .seconds(1)).open(.head(offices: ["a", "b"]))
        let slow = try await broker.transport().open(.branch(office: "a"))
        let sending = try await broker.transport(confirmWindow: 1000).open(.branch(office: "b"))
        let process = try TestBroker.processID()
        kill(process, SIGSTOP)
        defer { kill(process, SIGCONT) }
        let start = ContinuousClock.now
        let publishing = Task {
          await kind {
            while true {
              try await sending.publish([UInt8](repeating: 1, count: 1 << 20), to: .head, messageID: "x")
            }
          }
        }
        #expect(try await within(.seconds(10)) { await kind { _ = try await quick.next() } } == .unreachable)
        print("a hung broker is noticed after \(start.duration(to: .now)) at heartbeat 1 s")
        let closing = ContinuousClock.now
        for session in [slow, sending, quick] { try await within(.seconds(4)) { await session.close() } }
        print("three sessions with a hung broker close in \(closing.duration(to: .now))")
        #expect(try await within(.seconds(1)) { await publishing.value } == .closed)
      }
    }

    @Test("BRK-06, BRK-09: the broker restarts; sessions die at once, and new ones work")
    func theBrokerRestarts() async throws {
      try await TestBroker.with { broker in
        let head = try await broker.transport().open(.head(offices: ["north"]))
        let branch = try await broker.transport().open(.branch(office: "north"))
        try await head.publish([1], to: .branches, messageID: "kept")
        try await head.confirmed()
        let waiting = Task { await kind { _ = try await head.next() } }
        try TestBroker.control(["stop_app"])
        #expect(try await within(.seconds(3)) { await waiting.value } == .unreachable)
        #expect(await kind { try await branch.publish([1], to: .head, messageID: "x") } == .unreachable)
        #expect(await kind { _ = try await broker.transport().open(.head(offices: [])) } == .unreachable)
        await head.close()
        await branch.close()
        try TestBroker.control(["start_app"])
        let again = try await broker.transport().open(.head(offices: ["north"]))
        let north = try await broker.transport().open(.branch(office: "north"))
        #expect(try await within(.seconds(5)) { try await north.next() }.messageID == "kept")
        await north.close()
        await again.close()
      }
    }

    @Test("BRK-09: after the broker lost everything head declares it anew")
    func headDeclaresOnAWipedBroker() async throws {
      try await TestBroker.with { broker in
        let head = try await broker.transport().open(.head(offices: ["north"]))
        let branch = try await broker.transport().open(.branch(office: "north"))
        let waiting = Task { await kind { _ = try await branch.next() } }
        try broker.dropVirtualHost()
        let seen = try await within(.seconds(10)) { await waiting.value }
        #expect(seen == .unreachable || seen == .queueMissing)
        await head.close()
        await branch.close()
        try broker.makeVirtualHost()
        #expect(
          await kind { _ = try await broker.transport().open(.branch(office: "north")) } == .queueMissing)
        let again = try await broker.transport().open(.head(offices: ["north"]))
        let north = try await broker.transport().open(.branch(office: "north"))
        try await again.publish([9], to: .branches, messageID: "new")
        #expect(try await within(.seconds(5)) { try await north.next() }.messageID == "new")
        try await north.publish([9], to: .head, messageID: "up")
        #expect(try await within(.seconds(5)) { try await again.next() }.messageID == "up")
        await north.close()
        await again.close()
      }
    }

    @Test("BRK-14: sessions leave no descriptor and no thread behind")
    func sessionsLeaveNothingBehind() async throws {
      try await TestBroker.with { broker in
        let transport = try broker.transport()
        let missing = try broker.transport(url: broker.url(port: 1))
        func round() async throws {
          let head = try await transport.open(.head(offices: []))
          try await head.publish([1], to: .head, messageID: "x")
          _ = try await within(.seconds(5)) { try await head.next() }
          await head.close()
          await head.close()
          #expect(await kind { _ = try await head.next() } == .closed)
          #expect(await kind { try await head.publish([1], to: .head, messageID: "x") } == .closed)
          #expect(await kind { try await head.acknowledge(DeliveryTag(rawValue: 1)) } == .closed)
          #expect(await kind { try await head.declareOffice("a") } == .closed)
          #expect(await kind { _ = try await transport.open(.branch(office: "nobody")) } == .queueMissing)
          #expect(await kind { _ = try await missing.open(.head(offices: [])) } == .unreachable)
          // Dropped without close.
          _ = try await transport.open(.head(offices: []))
        }
        try await round()
        let before = try await Resources.settled()
        for _ in 1...50 { try await round() }
        try await eventually { try Resources.now().isWithin(before) }
        print("after 50 rounds: \(try Resources.now()), before: \(before)")
      }
    }
  }
}

/// Makes the broker block publishers until `end`.
final class MemoryAlarm: Sendable {
  private let mark: String

  init() throws {
    mark = try TestBroker.evaluate("vm_memory_monitor:get_vm_memory_high_watermark().")
    try TestBroker.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.00001).")
  }

  func end() {
    do { try TestBroker.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(\(mark)).") } catch {
      Issue.record(error)
    }
  }
}

/// Descriptors and threads of this process.
struct Resources: Sendable, CustomStringConvertible {
  var descriptors: Int
  var threads: Int

  static func now() throws -> Resources {
    let files = FileManager.default
    return Resources(
      descriptors: try files.contentsOfDirectory(atPath: "/proc/self/fd").count,
      // The pool of Swift's runtime comes and goes.
      threads: try threads(named: "hub-publish") + threads(named: "hub-consume"))
  }

  static func threads(named name: String) throws -> Int {
    try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task").filter {
      (try? String(contentsOfFile: "/proc/self/task/\($0)/comm", encoding: .utf8)) == name + "\n"
    }.count
  }

  /// Once sessions of earlier tests are gone.
  static func settled() async throws -> Resources {
    try await eventually { try now().threads == 0 }
    return try now()
  }

  func isWithin(_ other: Resources) -> Bool {
    threads <= other.threads && descriptors <= other.descriptors + 2
  }

  var description: String { "\(descriptors) descriptors, \(threads) threads" }
}
