module utilityvm/agent

go 1.19
