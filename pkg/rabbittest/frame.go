package rabbittest

import "encoding/binary"

// BlockedFrame is the AMQP method connection.blocked, with which a broker in a memory or disk alarm tells a publisher
// to stop. Sent through Proxy.SendToClients it raises no alarm on the shared broker.
func BlockedFrame(reason string) []byte {
	return method(60, append([]byte{byte(len(reason))}, reason...))
}

// UnblockedFrame is the AMQP method connection.unblocked.
func UnblockedFrame() []byte { return method(61, nil) }

// method builds a method frame of class connection on channel 0.
func method(id uint16, arguments []byte) []byte {
	frame := []byte{1, 0, 0} // method frame, channel 0
	frame = binary.BigEndian.AppendUint32(frame, uint32(4+len(arguments)))
	frame = binary.BigEndian.AppendUint16(frame, 10) // class connection
	frame = binary.BigEndian.AppendUint16(frame, id)
	return append(append(frame, arguments...), 0xCE)
}
