package kubeproxy_test

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// countMarks sets a bit of the mark of all packets that come into a node, and counts those to the echo servers that leave
// it with each of two marks. The function returned reads the counts.
func (s *stage) countMarks(node string, bit uint32, marks ...uint32) func() (first, second uint64) {
	s.t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(s.hosts.Namespaces[node].FD()))
	s.must(err)
	table := conn.AddTable(&nftables.Table{Name: "marks", Family: nftables.TableFamilyIPv4})
	in := conn.AddChain(&nftables.Chain{Table: table, Name: "in", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw})
	conn.AddRule(&nftables.Rule{Table: table, Chain: in, Exprs: []expr.Any{
		&expr.Immediate{Register: 1, Data: word(bit)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true},
	}})
	// After the last NAT of postrouting.
	var chains []*nftables.Chain
	for _, mark := range marks {
		out := conn.AddChain(&nftables.Chain{Table: table, Name: fmt.Sprintf("out-%d", mark), Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityConntrackConfirm})
		conn.AddRule(&nftables.Rule{Table: table, Chain: out, Exprs: []expr.Any{
			&expr.Payload{OperationType: expr.PayloadLoad, Base: expr.PayloadBaseTransportHeader, DestRegister: 1, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, echoPort)},
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: word(mark)},
			&expr.Counter{},
		}})
		chains = append(chains, out)
	}
	s.must(conn.Flush())
	return func() (uint64, uint64) {
		count := func(c *nftables.Chain) (packets uint64) {
			rules, err := conn.GetRules(table, c)
			s.must(err)
			for _, e := range rules[0].Exprs {
				if c, ok := e.(*expr.Counter); ok {
					packets = c.Packets
				}
			}
			return packets
		}
		return count(chains[0]), count(chains[1])
	}
}

func word(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
