package import HubEngine

/// A connection on a thread of its own: a job runs to its end there, and may block.
package actor PostgresConnection {
  private let executor: ConnectionExecutor
  private var session: Session?
  private let url: String
  private let name: String
  private let onConnect: @Sendable (Session) throws -> Void

  package nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  /// `onConnect` runs on every new connection before anything else; what it throws refuses the connection.
  package init(url: String, name: String, onConnect: @escaping @Sendable (Session) throws -> Void = { _ in }) {
    self.onConnect = onConnect
    self.url = url
    self.name = name
    executor = ConnectionExecutor(name: name)
  }

  deinit { executor.stop() }

  /// Runs `job` on the connection's thread; connects first, and again after the connection was lost.
  @discardableResult
  package func run<T: Sendable>(_ job: @Sendable (Session) throws -> T) async throws(HubError) -> T {
    do {
      if session?.isUsable != true {
        disconnect()
        session = try connect()
      }
      guard let session else { throw HubError(.database, "no connection") }
      defer { if !session.isUsable { disconnect() } }
      return try job(session)
    } catch let error as PostgresError {
      throw error.asHubError
    } catch let error as HubError {
      throw error
    } catch {
      throw HubError(.database, "\(error)")
    }
  }

  /// The same for a job of which the result does not matter.
  package func perform(_ job: @Sendable (Session) throws -> Void) async throws(HubError) {
    try await run { session -> Bool in
      try job(session)
      return true
    }
  }

  private func connect() throws -> Session {
    let session = try Session(url: url, name: name)
    try onConnect(session)
    return session
  }

  /// Closes the connection; the next `run` opens another.
  package func disconnect() {
    // A scan holds the session that holds it.
    session?.attachment = nil
    session = nil
  }
}
